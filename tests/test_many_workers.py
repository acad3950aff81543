"""The pool beside other libraries' threads and processes: threadpoolctl, joblib, many callers."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from random_layers import example

import fastlstm as fl
from fastlstm import kernels
from fastlstm.threads.limits import register

NO_VARIABLES = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}


def python(code, **variables):
    """What code prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=NO_VARIABLES | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def pool():
    return pytest.importorskip("fastlstm.kernels._pool", reason="no compiled kernels")


@pytest.fixture
def threadpoolctl():
    return pytest.importorskip("threadpoolctl")


@pytest.fixture
def three_threads():
    before = fl.get_num_threads()
    fl.set_num_threads(3)
    yield
    fl.set_num_threads(before)


def test_threadpoolctl_is_not_imported():
    assert python("import sys, fastlstm; print('threadpoolctl' in sys.modules)") == ["False"]


@pytest.mark.usefixtures("pool", "threadpoolctl")
@pytest.mark.parametrize(
    "imports",
    [
        "import fastlstm as fl; import threadpoolctl",
        "import threadpoolctl; threadpoolctl.threadpool_info(); import fastlstm as fl",
        "import fastlstm as fl; import threadpoolctl, importlib; importlib.reload(threadpoolctl)",
        "import fastlstm as fl; fl.threads.limits.register_when_imported(); import threadpoolctl",
    ],
    ids=["after fastlstm", "before fastlstm", "again", "twice"],
)
def test_threadpoolctl_limits_whatever_the_order_of_imports(imports):
    code = f"""
{imports}
fl.set_num_threads(7)
own, = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "fastlstm"]
print(own["num_threads"], own["version"] == fl.__version__, "_pool" in own["filepath"])
for limits in ((1,), (1, "fastlstm"), (dict(fastlstm=3),), (1, "blas"), (None,)):
    with threadpoolctl.threadpool_limits(*limits):
        print(fl.get_num_threads())
    assert fl.get_num_threads() == 7
print(type(threadpoolctl.__spec__.loader) is type(__import__("ast").__spec__.loader))
"""
    assert python(code) == ["7", "True", "True", "1", "1", "3", "7", "7", "True"]


@pytest.mark.usefixtures("share_all_work", "three_threads")
def test_a_limit_of_one_calls_nobody(compiled, rng, pool, threadpoolctl):
    case = example(rng, T=200, B=4, I=64, H=128)
    case()  # now there are workers
    with threadpoolctl.threadpool_limits(1):
        case()
        before = pool.visited()
        case()
        assert pool.visited() == before
    assert fl.get_num_threads() == 3


@pytest.mark.usefixtures("threadpoolctl")
def test_a_module_of_another_package_is_passed_over(pool, tmp_path):
    code = f"""
import ctypes, fastlstm, threadpoolctl
ctypes.CDLL({shutil.copy(pool.__file__, tmp_path)!r})
for one in threadpoolctl.threadpool_info():
    if one["user_api"] == "fastlstm":
        print(one["filepath"])
"""
    assert python(code) == [os.path.realpath(pool.__file__)]


def test_without_compiled_kernels_nothing_is_registered(pool, monkeypatch, tmp_path):
    registered = []
    fake = SimpleNamespace(LibController=object, register=registered.append)
    register(fake)
    assert [one.user_api for one in registered] == ["fastlstm"]
    monkeypatch.setattr(kernels, "__path__", [str(tmp_path)])
    register(fake)
    assert len(registered) == 1


@pytest.mark.usefixtures("pool")
def test_an_old_threadpoolctl_takes_no_other_libraries():
    register(SimpleNamespace())


LOKY = """
import fastlstm as fl
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
with parallel_config("loky", n_jobs={n_jobs}, inner_max_num_threads={inner}):
    counts = Parallel()(delayed(fl.get_num_threads)() for _ in range(4))
get_reusable_executor().shutdown(wait=True)
print(*set(counts), cpu_count())
"""


@pytest.mark.parametrize(
    ("n_jobs", "inner", "variables", "expected"),
    [
        (2, None, {}, lambda cores: max(1, cores // 2)),
        (2, 3, {}, lambda cores: 3),
        (2, None, {"FASTLSTM_NUM_THREADS": "5"}, lambda cores: 5),
    ],
    ids=["cores over workers", "inner_max_num_threads", "the variable"],
)
def test_a_worker_of_joblib_has_its_share_of_the_cores(n_jobs, inner, variables, expected):
    pytest.importorskip("joblib")
    *counts, cores = map(int, python(LOKY.format(n_jobs=n_jobs, inner=inner), **variables))
    assert counts == [expected(cores)]


CALLERS = """
import os, threading, time, numpy as np, fastlstm as fl
from fastlstm.engine import prepared
prepared.THRESHOLDS = prepared.THRESHOLDS._replace(parallel_work=0, step_work=0, lanes=0)
lstm, x = fl.LSTM(64, 128, rng=0), np.ones((100, 4, 64), np.float32)
def count():
    return len(os.listdir("/proc/self/task"))
def call():
    for _ in range(20):
        lstm(x, threads=3)
before = count()
call()
print(count() - before)
callers = [threading.Thread(target=call) for _ in range(5)]
[one.start() for one in callers]
[one.join() for one in callers]
end = time.monotonic() + 5
while count() > before + 2 and time.monotonic() < end:
    time.sleep(0.01)  # a thread ends a moment after it is joined
print(count() - before)
"""


@pytest.mark.usefixtures("pool")
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc")
@pytest.mark.skipif(fl.get_num_threads() == 1, reason="on one core nobody is called")
def test_callers_at_once_share_the_helpers():
    """k callers of n threads are k + n - 1 threads, not k n."""
    assert python(CALLERS) == ["2", "2"]
