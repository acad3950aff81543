"""What setup.py makes; and without compiled kernels, what users are told of the reasons."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from fastlstm import kernels
from fastlstm.kernels import not_compiled

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("FASTLSTM_", "CC"))
}
USER = "import numpy\nimport fastlstm\n\nfastlstm.show_config()\n"


def run(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory):
    """A copy of this checkout, built without a compiler; its kernels are a line of Cython."""
    pytest.importorskip("Cython", reason="builds need Cython")
    pytest.importorskip("setuptools", reason="builds need setuptools")
    folder = tmp_path_factory.mktemp("without_compiler")
    built = shutil.ignore_patterns("*.so", "*.pyd", "*.egg-info", "__pycache__", "_not_compiled*")
    shutil.copytree(ROOT / "src", folder / "src", ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder)
    (folder / "src/fastlstm/kernels/_kernels.pyx").write_text('"""No kernels."""\n')
    (folder / "user.py").write_text(USER)
    build(folder, "no-such-cc")
    return folder


@pytest.fixture
def checkout(without_compiler, tmp_path):
    """A copy of that, to be built again."""
    return Path(shutil.copytree(without_compiler, tmp_path / "checkout"))


@pytest.fixture
def compiler_without_headers(tmp_path):
    """A compiler that does not look into the folders of Python's headers."""
    if os.name != "posix" or not shutil.which("cc"):
        pytest.skip("expected a Unix system with a compiler cc")
    script = tmp_path / "my_cc"
    script.write_text(
        '#!/bin/sh\nfor word; do shift; case $word in -I*python*) ;; *) set -- "$@" "$word";; '
        'esac; done\nexec cc "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def build(checkout, compiler, *commands):
    commands = commands or ("build_ext", "--inplace")
    done = run(checkout, "setup.py", "--quiet", *commands, CC=compiler)
    assert done.returncode == 0, done.stderr


def use(checkout):
    """What a user's program says, as text and as a warning."""
    done = run(checkout, "user.py", PYTHONPATH=str(checkout / "src"))
    assert done.returncode == 0, done.stderr
    assert "backend    reference" in done.stdout
    return done.stdout, done.stderr


def assert_says(checkout, reason):
    told, warned = use(checkout)
    command = f"python -m pip install -e {checkout}"
    assert f"avx512   not compiled: {reason}" in told
    assert command in told
    assert warned.startswith(f"{checkout / 'user.py'}:2: RuntimeWarning: fastlstm was installed")
    assert f"Why: {reason}" in warned
    assert command in warned
    assert warned.splitlines()[1].strip() == "import fastlstm"


def test_modules_declare_that_they_need_no_interpreter_lock(without_compiler):
    """One module that does not would bring the lock back in a free-threaded interpreter."""
    sources = list((without_compiler / "build").rglob("*.c"))
    assert len(sources) >= 5  # three helpers, and the kernels for each dtype
    for source in sources:
        *_, declared = re.findall("#define __Pyx_FREETHREADING_COMPATIBLE (.*)", source.read_text())
        assert declared == "Py_MOD_GIL_NOT_USED", source


def test_no_compiler(without_compiler):
    assert_says(without_compiler, "no C compiler (no-such-cc: No such file or directory)")


def test_no_headers_of_python(checkout, compiler_without_headers):
    build(checkout, compiler_without_headers)
    assert_says(checkout, "Python.h was not found; it comes with the headers of Python (")


@pytest.mark.skipif(os.name != "posix", reason="the compiler is a command of Unix")
def test_a_compiler_that_fails_in_silence(checkout):
    build(checkout, "/bin/false")
    assert_says(checkout, "/bin/false failed with status 1")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no compiler cc")
def test_an_error_in_the_code(checkout):
    """The reason is the compiler's first error, of this build only."""
    kernels = checkout / "src/fastlstm/kernels/_kernels.pyx"
    kernels.write_text('cdef extern from *:\n    """\n    #error of this test\n    """\n')
    build(checkout, "cc")
    told, _ = use(checkout)
    assert re.search("avx2 +not compiled: .*error: #error of this test", told)
    kernels.write_text('"""No kernels."""\n')
    build(checkout, "cc")
    assert not (kernels.parent / "_not_compiled.txt").exists()
    assert "not compiled" not in run(checkout, "user.py", PYTHONPATH=str(checkout / "src")).stdout


def test_a_wheel_holds_the_reason(checkout, tmp_path):
    build(checkout, "no-such-cc", "bdist_wheel")
    (wheel,) = (checkout / "dist").iterdir()
    with zipfile.ZipFile(wheel) as files:
        record = files.read("fastlstm/kernels/_not_compiled.txt").decode()
        files.extractall(tmp_path / "site")
    assert "_cpu: no C compiler (no-such-cc: No such file or directory)\n" in record
    done = run(checkout, "user.py", PYTHONPATH=str(tmp_path / "site"))
    again = "python -m pip install --force-reinstall --no-deps --no-cache-dir --no-binary fastlstm"
    assert f"{again} fastlstm\n" in done.stdout
    assert again in done.stderr


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "--no-binary fastlstm fastlstm"),
        ({"url": "file:///a/b.whl", "archive_info": {}}, "--no-binary fastlstm fastlstm"),
        ({"url": "file:///a/b.tar.gz", "archive_info": {}}, "file:///a/b.tar.gz"),
        ({"url": "file:///a/my%20b", "dir_info": {}}, "file:///a/my%20b"),
        (
            {"url": "https://host/b", "vcs_info": {"vcs": "git", "commit_id": "1f0c"}},
            "git+https://host/b@1f0c",
        ),
        (
            {"url": "file:///a", "dir_info": {}, "subdirectory": "b"},
            "'file:///a#subdirectory=b'",
        ),
    ],
)
def test_the_command_installs_from_where_it_came(tmp_path, monkeypatch, origin, expected):
    """As pip records it in direct_url.json."""
    installed = tmp_path / "fastlstm-0.1.0.dist-info"
    installed.mkdir()
    if origin is not None:
        (installed / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(metadata, "distribution", lambda name: metadata.PathDistribution(installed))
    monkeypatch.setattr(not_compiled, "CHECKOUT", tmp_path)
    wanted = f"python -m pip install --force-reinstall --no-deps --no-cache-dir {expected}"
    assert not_compiled.command() == wanted


def test_each_build_has_its_reason(tmp_path, monkeypatch):
    record = tmp_path / "_not_compiled.txt"
    monkeypatch.setattr(not_compiled, "RECORD", record)
    assert not_compiled.reason("avx512") == "they were never built"
    record.write_text("_avx512_float32: no flag -mavx512f\n_avx2_float64: other: reason\n")
    assert not_compiled.reason("avx512") == "no flag -mavx512f"
    assert not_compiled.reason("avx2") == "other: reason"
    assert not_compiled.reason("baseline") == "no flag -mavx512f"  # any reason rather than none
    monkeypatch.setattr(kernels, "_builds", ())
    assert kernels.why_not(kernels.COMPILED[-1]) == "not compiled: no flag -mavx512f"


def test_a_chosen_backend_needs_no_warning(without_compiler):
    environment = {"PYTHONPATH": "src", "FASTLSTM_BACKEND": "reference"}
    done = run(without_compiler, "-W", "error", "user.py", **environment)
    assert done.returncode == 0, done.stderr
