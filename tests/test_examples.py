"""The examples end with what they promise, on a small budget."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
PACKAGES = {"forecast": "statsmodels", "see_gates": "matplotlib"}  # that an example needs


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_example(path):
    if path.stem in PACKAGES:
        pytest.importorskip(PACKAGES[path.stem])
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


def run(path, PYTHONPATH=""):
    folders = os.pathsep.join(filter(None, [PYTHONPATH, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": folders}
    command = [sys.executable, str(path), "--quick"]
    return subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
