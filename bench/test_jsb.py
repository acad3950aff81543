"""`python -m bench.jsb` on a few made chorales."""

import numpy as np
import pytest

from bench.conftest import run_module

scipy_io = pytest.importorskip("scipy.io")


@pytest.mark.parametrize("cell", ["GRU", "RNN"])
def test_made_chorales(cell, tmp_path):
    rng = np.random.default_rng(0)
    sets = {}
    for name, count in (("traindata", 9), ("validdata", 2), ("testdata", 3)):
        songs = np.empty((1, count), object)
        for k in range(count):
            songs[0, k] = (rng.random((rng.integers(2, 9), 88)) < 0.04).astype(float)
        sets[name] = songs
    (tmp_path / "jsb-chorales").mkdir()
    scipy_io.savemat(tmp_path / "jsb-chorales" / "JSB_Chorales.mat", sets)
    output = run_module("jsb", "--cell", cell, "--epochs", 2, FASTLSTM_CASES=str(tmp_path))
    found = float(output.splitlines()[-1].split()[1])
    assert output.splitlines()[-1].startswith(f"{cell}: ")
    assert 0 < found < 88 * np.log(2) * 1.1


def test_no_chorales(tmp_path):
    with pytest.raises(AssertionError, match="FASTLSTM_CASES: expected a folder with"):
        run_module("jsb", FASTLSTM_CASES=str(tmp_path))
