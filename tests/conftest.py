"""Fixtures of all tests."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from builds import compiled as compiled
from builds import kernels as kernels
from hypothesis import HealthCheck, settings

import fastlstm as fl
from fastlstm.engine import prepared

settings.register_profile(
    "fastlstm",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("fastlstm")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; runs only with `-m slow`")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    if "avx512" in fl.backends():
        # Every test of a layer runs once for each build. With a wider build in use, AVX2's runs
        # beyond the tests of the kernels are left to `-m slow`.
        for item in items:
            if "kernels" not in item.path.parts and _build_of(item) == "avx2":
                item.add_marker("slow")
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def _build_of(item):
    given = getattr(item, "callspec", None)
    return given and (given.params.get("kernels") or given.params.get("compiled"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def torch_on_one_thread():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def share_all_work(monkeypatch) -> None:
    """However little the work of a call, all its threads get some."""
    always = prepared.THRESHOLDS._replace(parallel_work=0, step_work=0, lanes=0)
    monkeypatch.setattr(prepared, "THRESHOLDS", always)


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder of the numbers that other projects published."""
    beside = Path(__file__).parents[2] / "shared" / "cases"
    folder = Path(os.environ.get("FASTLSTM_CASES", beside))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: FASTLSTM_CASES names where the published cases are")
    return folder
