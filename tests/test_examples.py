"""The examples end with what they promise, on a small budget."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import find_mpiexec

FOLDER = Path(__file__).parents[1] / "examples"
PACKAGES = {  # that an example needs
    "dask_scoring": ("distributed", "sklearn"),
    "forecast": ("statsmodels",),
    "see_gates": ("matplotlib",),
    "speakers": ("sklearn",),
}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_example(path):
    for package in PACKAGES.get(path.stem, ()):
        pytest.importorskip(package)
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_forecast_says_what_it_needs(tmp_path):
    (tmp_path / "statsmodels.py").write_text("raise ModuleNotFoundError(name='statsmodels')")
    done = run(FOLDER / "forecast.py", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        'The series needs statsmodels: pip install "fastlstm[examples]"'
    ]


def test_distributed_alone_and_on_two_ranks():
    pytest.importorskip("mpi4py")
    mpiexec = find_mpiexec()
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    path, ends = FOLDER / "distributed.py", []
    for launch in [], [mpiexec, "-n", "2"]:
        done = run(path, launch=[*launch, sys.executable, "-m", "mpi4py"])
        assert done.returncode == 0, done.stderr
        ends.append(done.stdout.splitlines()[-1])
    (alone, end), (ranks, same_end) = (line.split(": ") for line in ends)
    assert (alone, ranks) == ("1 rank", "2 ranks")
    assert end == same_end


def test_distributed_without_mpi4py(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ModuleNotFoundError(name='mpi4py')")
    done = run(FOLDER / "distributed.py", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 rank: loss ")


def run(path, PYTHONPATH="", launch=(sys.executable,)):
    folders = os.pathsep.join(filter(None, [PYTHONPATH, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": folders}
    command = [*launch, str(path), "--quick"]
    return subprocess.run(
        command, env=environment, capture_output=True, check=False, text=True, timeout=300
    )
