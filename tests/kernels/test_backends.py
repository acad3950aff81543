"""Which build is in use, who may say so, and what importing it leaves alone."""

import asyncio
import contextvars
import os
import re
import subprocess
import sys
import sysconfig
import threading

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


def in_a_thread(function):
    """The result of `function` in a new thread, in a context without any choice."""
    results = []
    run = contextvars.Context().run
    thread = threading.Thread(target=run, args=(lambda: results.append(function()),))
    thread.start()
    thread.join(60)
    return results[0]


def of_layer():
    """The backend by which a layer computes."""
    dtype = np.dtype(np.float32)
    in_use = fl.kernels.kernels(dtype)
    (name,) = [name for name in fl.backends() if fl.kernels.load(name, "test")[dtype] is in_use]
    assert name == fl.backend()
    return name


@pytest.mark.parametrize("first", [0, 1])
def test_overlapping_blocks_in_two_threads(first):
    """Whichever of them ends first, each thread has its own backend, and others the process's."""
    before, names = of_layer(), ("reference", fl.backends()[0])
    entered, leave = threading.Barrier(3), (threading.Event(), threading.Event())
    seen = {}

    def run(k):
        with fl.use_backend(names[k]):
            entered.wait(60)
            within = of_layer()
            leave[k].wait(60)
            seen[k] = within, of_layer()
        seen[k] += (of_layer(),)

    threads = [threading.Thread(target=contextvars.Context().run, args=(run, k)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    entered.wait(60)
    for k in (first, 1 - first):
        assert of_layer() == before
        leave[k].set()
        threads[k].join(60)
    assert of_layer() == before
    process = in_a_thread(of_layer)
    assert seen == {k: (names[k], names[k], process) for k in (0, 1)}


def test_a_new_thread_computes_by_its_context():
    process = in_a_thread(of_layer)
    for name in fl.backends():
        with fl.use_backend(name):
            copy = contextvars.copy_context()
            assert in_a_thread(of_layer) == process
            assert in_a_thread(lambda copy=copy: copy.run(of_layer)) == name


def test_tasks_choose_for_themselves_and_hand_down():
    async def ask():
        return of_layer()

    async def choose(name, entered, other):
        with fl.use_backend(name):
            entered.set()
            await other.wait()
            handed_down = await asyncio.create_task(ask()), await asyncio.to_thread(of_layer)
            assert {of_layer(), *handed_down} == {name}
        return of_layer()

    async def main():
        a, b = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(
            choose("reference", a, b), choose(fl.backends()[0], b, a), ask()
        )

    before = of_layer()
    assert asyncio.run(main()) == [before] * 3
    assert of_layer() == before


def test_a_failed_choice_changes_nothing():
    with fl.use_backend("reference"):
        with pytest.raises(ValueError, match="sse9"):
            fl.use_backend("sse9")
        assert of_layer() == "reference"


@pytest.mark.parametrize("name", ["sse9", "cuda", "", "AVX2", None, 2])
def test_an_unknown_backend_is_refused_at_the_call(name):
    with pytest.raises(ValueError, match=f"^name: .*got {re.escape(repr(name))}"):
        fl.use_backend(name)


def test_a_choice_holds_in_its_block_alone():
    before = fl.backend()
    choice = fl.use_backend("reference")
    assert fl.backend() == before
    with choice:
        assert fl.backend() == "reference"
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


@pytest.mark.skipif(fl.backends() == ("reference",), reason="no compiled kernels")
def test_import_loads_little():
    """The reference and the wings, a third of the time of an import, wait for their first use."""
    assert_passes(
        """
import sys
import numpy
before = set(sys.modules)
import fastlstm as fl

own = "kernels.reference", "kernels.not_compiled", "onnx", "interop", "commands", "files"
own += "training.losses", "training.optim", "training.schedules"
own += "layers.activation", "layers.embedding", "layers.steps.masking", "layers.steps.merge"
late = *(f"fastlstm.{name}" for name in own), "numpy.random", "json", "subprocess", "socket"
loaded = [name for name in late if name in set(sys.modules) - before]
assert not loaded, loaded
assert set(fl.__all__) <= set(dir(fl)) and set(fl.training.__all__) <= set(dir(fl.training))
[getattr(module, name) for module in (fl, fl.training) for name in module.__all__]
fl.onnx.lstm, fl.engine.PythonCell, fl.schedules.cosine, fl.optim.Adam, fl.losses.mse
for module in (fl, fl.engine):
    try:
        module.no_such_name
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError("expected an AttributeError")
""",
        FASTLSTM_BACKEND=fl.backends()[0],
    )


@pytest.mark.parametrize("name", fl.backends())
def test_import_leaves_the_interpreter_lock_off(name):
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this interpreter cannot run without its lock")
    code = "import sys, numpy; off = not sys._is_gil_enabled(); import fastlstm as fl; "
    for dtype in ("float32", "float64"):
        code += f"fl.LSTM(3, 4, dtype={dtype!r})(numpy.zeros((5, 2, 3)), threads=2); "
    code += "assert off and not sys._is_gil_enabled()"
    done = subprocess.run(
        [sys.executable, "-X", "gil=0", "-W", "error", "-c", code],
        env=os.environ | {"FASTLSTM_BACKEND": name},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_numpys_error_state_is_left_alone(kernels):
    """Also where quiet functions call each other, in NumPy 1."""
    before = np.geterr()
    rnn = fl.RNN(3, 4, nonlinearity="relu", rng=0)
    (y, _), tape = rnn.forward(np.full((5, 2, 3), 1e30))
    rnn.backward(tape, y)
    assert np.geterr() == before


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
