"""How many threads a process begins with: by variables, by its cores, or by its cgroup's quota."""

import os
import subprocess
import sys

import pytest

import fastlstm as fl
from fastlstm.threads import first_num_threads

NO_VARIABLES = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
SAY = "import fastlstm as fl; print(fl.get_num_threads()); fl.show_config()"


def python(code, **variables):
    environment = NO_VARIABLES | {"FASTLSTM_BACKEND": "reference"} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def machine(tmp_path):
    """A function that makes a root folder with files of /proc and /sys; returns its path."""

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("variables", "expected", "source"),
    [
        ({"FASTLSTM_NUM_THREADS": "3"}, 3, "FASTLSTM_NUM_THREADS"),
        ({"FASTLSTM_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3, "FASTLSTM_NUM_THREADS"),
        ({"FASTLSTM_NUM_THREADS": "3", "OMP_NUM_THREADS": "junk"}, 3, "FASTLSTM_NUM_THREADS"),
        ({"FASTLSTM_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "5"}, 5, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "4,2"}, 4, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": " 4 , 2,1 "}, 4, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "100"}, 100, "OMP_NUM_THREADS"),  # more than cores and quota
        ({"OMP_NUM_THREADS": ""}, 2, "the CPU quota of the cgroup"),
        ({"OMP_NUM_THREADS": " "}, 2, "the CPU quota of the cgroup"),
        ({}, 2, "the CPU quota of the cgroup"),
    ],
    ids=str,
)
def test_variables_win_over_quota_and_cores(eight_cores, machine, variables, expected, source):
    root = machine({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"})
    assert first_num_threads(variables, root) == (expected, source)


@pytest.mark.parametrize("name", ["FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize(
    "text",
    [*("0", "-1", "+2", "2.5", "four", "1e3", "0x2", "1_0", "２", "2 3"), str(2**31), "9" * 5000],
    ids=lambda text: text[:10],
)
def test_a_variable_that_is_no_number_of_threads(name, text):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got ") as error:
        first_num_threads({name: text})
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OMP_NUM_THREADS", "4,"),
        ("OMP_NUM_THREADS", ",4"),
        ("OMP_NUM_THREADS", "4,x"),
        ("OMP_NUM_THREADS", "0,4"),
        ("FASTLSTM_NUM_THREADS", "4,2"),  # only OpenMP has levels
    ],
)
def test_lists_that_are_no_numbers_of_threads(name, text):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got '{text}'"):
        first_num_threads({name: text})


V1 = {"proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a/b\n0::/"}
V2 = {"proc/self/cgroup": "0::/a/b"}
DOCKER = {"proc/self/cgroup": "3:cpuacct,cpu:/docker/1f0c\n1:name=systemd:/docker/1f0c"}
GROUP, GROUP_V1 = "sys/fs/cgroup/", "sys/fs/cgroup/cpu/"


def v1(group, quota, period=100000):
    return {
        f"{GROUP_V1}{group}cpu.cfs_quota_us": str(quota),
        f"{GROUP_V1}{group}cpu.cfs_period_us": str(period),
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),  # no Linux
        ({"proc/self/cgroup": ""}, 8),
        (V2, 8),
        (V2 | {f"{GROUP}a/b/cpu.max": "max 100000"}, 8),
        (V2 | {f"{GROUP}a/b/cpu.max": "300000 100000"}, 3),
        (V2 | {f"{GROUP}a/b/cpu.max": "210000 100000"}, 3),  # rounded up
        (V2 | {f"{GROUP}a/b/cpu.max": "1000 100000"}, 1),
        (V2 | {f"{GROUP}a/b/cpu.max": "25000 50000"}, 1),
        (V2 | {f"{GROUP}a/b/cpu.max": "150000 50000"}, 3),
        (V2 | {f"{GROUP}a/b/cpu.max": "3200000 100000"}, 8),  # more than the cores
        (V2 | {f"{GROUP}a/b/cpu.max": "junk"}, 8),
        (V2 | {f"{GROUP}a/cpu.max": "200000 100000"}, 2),  # of the parent
        (V2 | {f"{GROUP}a/cpu.max": "2 1", f"{GROUP}a/b/cpu.max": "4 1"}, 2),
        (V2 | {f"{GROUP}a/cpu.max": "4 1", f"{GROUP}a/b/cpu.max": "2 1"}, 2),
        (V2 | {f"{GROUP}cpu.max": "5 1"}, 5),  # of a container that sees its own group as the root
        (V2 | {f"{GROUP}a/c/cpu.max": "1 1"}, 8),  # of a neighbor
        ({"proc/self/cgroup": "0::/a:b"} | {f"{GROUP}a:b/cpu.max": "2 1"}, 2),
        (V1, 8),
        (V1 | v1("a/b/", -1), 8),
        (V1 | v1("a/b/", 250000), 3),
        (V1 | v1("a/b/", 250000, 0), 8),
        (V1 | v1("a/", 100000), 1),
        (V1 | v1("", 400000) | v1("a/b/", 600000), 4),
        (V1 | {f"{GROUP}memory/a/cpu.max": "1 1"}, 8),
        (DOCKER | v1("", 200000), 2),  # the group's name is that of the host
    ],
)
def test_quota(eight_cores, machine, files, expected):
    n, source = first_num_threads({}, machine(files))
    assert n == expected
    assert source == ("the CPU quota of the cgroup" if n < 8 else "the cores of this process")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity():
    code = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {SAY}"
    assert python(code).stdout.startswith("1\n")


@pytest.mark.parametrize("name", ["FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS"])
def test_a_process_reads_the_variables(name):
    said = python(SAY, **{name: "13"}).stdout
    assert said.startswith("13\n")
    assert f"by {name}" in said


@pytest.mark.parametrize("name", ["FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_import_fails_by_the_variables_name(name):
    done = python("import fastlstm", **{name: "many"})
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {name}: expected")
    assert "'many'" in done.stderr


def test_show_config_names_set_num_threads():
    said = python("import fastlstm as fl; fl.set_num_threads(7); fl.show_config()").stdout
    assert "threads    7 of" in said
    assert "by set_num_threads" in said


def test_workers_of_joblib_get_their_share(monkeypatch):
    joblib = pytest.importorskip("joblib")
    for name in ("FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with joblib.parallel_config("loky", inner_max_num_threads=3):
        numbers = joblib.Parallel(n_jobs=2)(joblib.delayed(fl.get_num_threads)() for _ in range(4))
    assert numbers == [3] * 4


@pytest.mark.parametrize(
    ("variables", "before", "expected"),
    [
        ({}, "", "2 1"),
        ({"FASTLSTM_NUM_THREADS": "6"}, "", "6 6"),
        ({"OMP_NUM_THREADS": "6"}, "", "6 6"),
        ({}, "fl.set_num_threads(6)", "6 6"),
        ({}, "fl.set_num_threads(fl.get_num_threads())", "8 8"),
    ],
    ids=str,
)
def test_a_share_is_lower_and_only_where_nothing_was_set(variables, before, expected):
    code = f"""
import os
os.sched_getaffinity = lambda _: set(range(8))
import fastlstm as fl
from fastlstm.threads import lower_num_threads
{before}
for n in (9, 8, 2, 3):
    lower_num_threads(n, "its share")
print(fl.get_num_threads(), end=" ")
lower_num_threads(1, "its share")
print(fl.get_num_threads())
fl.show_config()
fl.set_num_threads(5)
print(fl.get_num_threads())
"""
    said = python(code, **variables).stdout
    assert said.startswith(expected + "\n")
    assert ("by its share" in said) == (expected == "2 1")
    assert said.endswith("5\n")
