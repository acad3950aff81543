"""Which build is in use, who may say so, and what importing it leaves alone."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import fastlstm as fl


def python(code, **environment):
    """Run `code` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_passes(code, **environment):
    done = python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_backends_can_all_run():
    assert fl.backends()[-1] == "reference"
    assert len(set(fl.backends())) == len(fl.backends())
    for name in fl.backends():
        with fl.use_backend(name):
            fl.LSTM(2, 3)(np.zeros((4, 2)))


def test_the_fastest_is_the_default():
    environment = {k: v for k, v in os.environ.items() if k != "FASTLSTM_BACKEND"}
    code = "import fastlstm as fl; assert fl.backend() == fl.backends()[0], fl.backend()"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, timeout=120
    )


def test_use_backend(kernels):
    assert fl.backend() == kernels


def test_use_backend_nests_and_restores():
    before = fl.backend()
    with fl.use_backend("reference"):
        with fl.use_backend(fl.backends()[0]):
            assert fl.backend() == fl.backends()[0]
        assert fl.backend() == "reference"
    assert fl.backend() == before


def test_use_backend_restores_after_an_exception():
    before = fl.backend()
    with pytest.raises(ZeroDivisionError), fl.use_backend("reference"):
        1 / 0  # noqa: B018
    assert fl.backend() == before


@pytest.mark.parametrize("name", ["sse9", "", "AVX2", None, 2])
def test_unknown_backend(name):
    before = fl.backend()
    with pytest.raises((ValueError, TypeError), match=re.escape(repr(name))), fl.use_backend(name):
        pass
    assert fl.backend() == before


def test_environment_chooses(kernels):
    said = assert_passes("import fastlstm as fl; print(fl.backend())", FASTLSTM_BACKEND=kernels)
    assert said.split() == [kernels]


def test_environment_names_an_unknown_backend():
    done = python("import fastlstm", FASTLSTM_BACKEND="sse9")
    assert done.returncode != 0
    assert "FASTLSTM_BACKEND" in done.stderr
    assert "'sse9'" in done.stderr


def test_a_layer_computes_with_the_backend_in_use(kernels, rng, monkeypatch):
    """Another backend's functions are out of reach meanwhile, also in training."""
    others = {fl.kernels.load(name, "test")[np.dtype(np.float32)] for name in fl.backends()}
    others.discard(fl.kernels.load(kernels, "test")[np.dtype(np.float32)])
    for module in others:
        for name in ("pack_lstm", "stack", "forward", "backward"):
            monkeypatch.setattr(module, name, None)
    lstm = fl.LSTM(2, 3, rng=rng)
    lstm(np.zeros((4, 2)))
    (y, _), tape = lstm.forward(np.zeros((4, 2)))
    lstm.backward(tape, y)


def test_show_config(kernels, capsys):
    fl.show_config()
    said = capsys.readouterr().out
    for wanted in (kernels, fl.__version__, np.__version__):
        assert wanted in said


def test_import_needs_numpy_alone():
    assert_passes(
        """
import sys
import numpy
before = set(sys.modules)
import fastlstm
new = {name.partition(".")[0] for name in set(sys.modules) - before}
new = {name for name in new if not name.startswith(("cython_runtime", "_cython_"))}
assert new <= sys.stdlib_module_names | {"fastlstm", "numpy"}, new
""",
        FASTLSTM_BACKEND=fl.backend(),
    )


def test_floating_point_environment_is_left_alone(kernels):
    """Subnormals are the first to go when a library is linked with -ffast-math."""
    assert_passes(
        """
import numpy as np

def environment():
    tiny = {np.float32: 1e-40, np.float64: 1e-310}
    for dtype, value in tiny.items():
        subnormal = np.full(64, value, dtype)
        assert (subnormal * dtype(0.5) > 0).all(), dtype
        assert (np.full(64, np.finfo(dtype).tiny) * dtype(0.5) > 0).all(), dtype
    return np.geterr()

before = environment()
import fastlstm as fl
assert environment() == before
for dtype in (np.float32, np.float64):
    lstm = fl.LSTM(3, 20, dtype=dtype)
    x = np.full((6, 5, 3), 1e-42, dtype)
    for threads in (1, 2):
        lstm(x, threads=threads)
        assert environment() == before
    (y, _), tape = lstm.forward(x)
    lstm.backward(tape, y)
    assert environment() == before
""",
        FASTLSTM_BACKEND=kernels,
    )
