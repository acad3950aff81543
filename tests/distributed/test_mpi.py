"""Ranks as processes of MPI."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import find_mpiexec

from fastlstm.threads import first_num_threads

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
SCRIPT = Path(__file__).parents[1] / "support" / "mpi_run.py"
TIMEOUT = 120  # seconds


def start(size, *arguments, **variables):
    """Run a task on so many ranks, of one thread each unless variables say another number."""
    mpiexec = find_mpiexec()
    if mpiexec is None:
        pytest.skip("no mpiexec")
    places = [os.path.dirname(SCRIPT), *filter(None, sys.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    environment |= variables
    command = [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", os.fspath(SCRIPT)]
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def reports(size, *arguments, **variables):
    done = start(size, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "size", [2, 3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 4))]
)
def test_ranks_train_as_one_process(size):
    """Also those of COMM_SELF, and of each half of the ranks."""
    first, second = (reports(size, "agree") for _ in range(2))
    for report, again in zip(first, second, strict=True):
        assert report.pop("size") == size
        for name, value in report.items():
            if name.endswith("bits"):
                assert value == first[0][name]  # all ranks have the same
                if "ordered" in name:
                    assert value == again[name]
            else:
                assert value <= (1e-5 if "float32" in name else 1e-11), name
        assert report["float64 self"] == 0


def test_ranks_divide_the_cores():
    variables = {"OMP_NUM_THREADS": "", "FASTLSTM_NUM_THREADS": ""}
    found = reports(2, "threads", **variables)
    assert all(first == second for first, second in found)
    assert 2 <= sum(first for first, _ in found) <= max(2, first_num_threads({})[0])
    assert reports(2, "threads", **variables | {"FASTLSTM_NUM_THREADS": "7"}) == [[7, 7]] * 2


def test_ctrl_c_on_one_rank_stops_all_at_the_same_step():
    for report in reports(2, "interrupt"):
        assert (report["step"], report["stopped"]) == (5, "interrupt")


def test_an_error_on_one_rank_ends_all_by_name():
    begin = time.monotonic()
    done = start(2, "fault")
    assert time.monotonic() - begin < TIMEOUT / 2
    assert done.returncode != 0
    assert "KeyError: 'of the user'" in done.stderr


def test_a_checkpoint_of_two_ranks_serves_three(tmp_path):
    folder = tmp_path / "kept"
    done = start(2, "resume", folder)
    assert done.returncode != 0
    assert "death" in done.stderr
    for report in reports(3, "resume", folder):
        assert report["distance"] < 1e-11
