"""`python -m bench.old_new`: this build beside itself."""

import json
from pathlib import Path

import pytest

import fastlstm as fl
from bench.cases import MODES, select
from bench.conftest import run_module

ONLY = "--cases", "tiny", "--only", "5, 3, 2, 4; 2 layers", "--seconds", 0


@pytest.fixture
def old_src(tmp_path):
    """A folder that this build is imported from under another name."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "fastlstm").symlink_to(Path(fl.__file__).parent, target_is_directory=True)
    return source


@pytest.mark.parametrize("protocol", ["hot", "cold"])
def test_in_every_mode(protocol, old_src, tmp_path):
    file = tmp_path / "report.json"
    run_module("old_new", old_src, *ONLY, *["--cold"] * (protocol == "cold"), "--json", file)
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["protocol"]["name"] == protocol
    assert report["builds"]["new"]["file"] == fl.__file__
    assert report["builds"]["old"]["file"] == str(old_src / "fastlstm" / "__init__.py")
    cases = select(["tiny"], ONLY[3])
    assert len(report["rows"]) == len(MODES) * len(cases)
    for row in report["rows"]:
        assert row["new"] > 0
        assert row["old"] > 0
        assert row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1]
        assert not row["differs"]


def test_the_same_build_twice():
    with pytest.raises(AssertionError, match="both builds are"):
        run_module("old_new", Path(fl.__file__).parents[1], *ONLY)


@pytest.mark.skipif(fl.backend() == "reference", reason="both would run on the reference")
def test_a_build_without_its_kernels(old_src):
    chosen = "import os; os.environ['FASTLSTM_BACKEND'] = 'reference'"
    (old_src / "sitecustomize.py").write_text(chosen, encoding="utf-8")
    with pytest.raises(AssertionError, match="got reference; is it built in place"):
        run_module("old_new", old_src, *ONLY)
