"""What `help` shows: every public name is described, and examples say what happens."""

import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import fastlstm as fl
from fastlstm import engine, kernels
from fastlstm.kernels import reference

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def own_functions(module):
    """The public functions and classes that a module defines."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def listed(module):
    return {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}


DOORS = fl.interop
OF_INTEROP = DOORS.audio.skip, DOORS.rnnoise, DOORS.rnnoise.network, DOORS.tensorflow, DOORS.tflite
OBJECTS = listed(fl) | listed(fl.onnx) | listed(fl.optim) | listed(engine) | listed(reference)
OBJECTS |= listed(fl.inspection) | listed(fl.distributed)
for module in (fl.losses, fl.schedules, kernels, *OF_INTEROP):
    OBJECTS |= own_functions(module)
for package in ("dask", "sklearn"):
    if importlib.util.find_spec(package):
        OBJECTS |= listed(importlib.import_module(f"fastlstm.{package}"))
CALLABLES = {name: value for name, value in OBJECTS.items() if callable(value)}
METHODS = {
    f"{name}.{method}": getattr(value, method)
    for name, value in CALLABLES.items()
    if inspect.isclass(value)
    for method in dir(value)
    if method == "__call__" or not method.startswith("_")
    if inspect.isfunction(getattr(value, method))
}
ALL = CALLABLES | METHODS


def sections(text):
    """A numpydoc docstring's sections: the lines of each, by its title."""
    found = re.split(r"^(\w[\w ]*)\n-+$", inspect.cleandoc(text or ""), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("name", ALL)
def test_every_public_name_has_a_docstring(name):
    assert ALL[name].__doc__  # its own: inspect.getdoc would take that of a base class


@pytest.mark.parametrize("name", ALL)
def test_no_placeholder_is_left(name):
    assert not re.search(r" : \.\.\.$", ALL[name].__doc__ or "", flags=re.MULTILINE)


@pytest.mark.parametrize(
    "name", [name for name in ALL if "Parameters" in sections(ALL[name].__doc__)]
)
def test_described_parameters_are_those_of_the_signature(name):
    lines = re.findall(r"^\S.*", sections(ALL[name].__doc__)["Parameters"], flags=re.MULTILINE)
    described = {part for line in lines for part in line.partition(" : ")[0].split(", ")}
    groups = {part for part in described if part.startswith("*")}
    expected = set(inspect.signature(ALL[name]).parameters) - {"self"}
    expected -= {group.strip("*") for group in groups}
    named = described - groups
    assert named <= expected if groups else named == expected


@pytest.mark.parametrize("method", ["__call__", "forward", "backward"])
def test_a_stacks_methods_say_all(method):
    found = sections(getattr(engine.Stack, method).__doc__)
    assert {"Parameters", "Returns", "Raises"} <= set(found)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SRC.rglob("*.py")) if ">>> " in path.read_text()],
    ids=lambda path: str(path.relative_to(SRC)),
)
def test_examples(path):
    name = ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    for package in ("torch", "sklearn", "dask"):
        if re.search(rf"^ *>>> (import|from) .*\b{package}\b", path.read_text(), re.MULTILINE):
            pytest.importorskip(package)
    results = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert results.attempted
    assert not results.failed


def test_the_readmes_ten_lines():
    run_page = importlib.import_module("run_page").run_page
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    result = run_page(text[: text.index("A trainer does the rest")], "README.md")
    assert float(re.search(r":class: output\n(.*)\n", result)[1]) < 0.05


def test_the_gallery_has_every_example():
    text = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    names = sorted(path.stem for path in (ROOT / "examples").rglob("*.py"))
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == names


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_pages(path, tmp_path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    for package in ("matplotlib", "torch", "onnx", "sklearn", "dask"):
        draws = package == "matplotlib" and ".plot(" in text
        imports = rf"^(import|from) (fastlstm\.)?{package}\b"
        if draws or re.search(imports, text, re.MULTILINE):
            pytest.importorskip(package)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    result = importlib.import_module("run_page").run_page(text, path.name)
    assert result.count("```") >= text.count("```")


def test_excerpts_are_the_source():
    """The page on writing a kernel quotes lines of the RNN's, with comments of its own."""
    own = (SRC / "fastlstm/kernels/cells/rnn.pxi").read_text(encoding="utf-8")
    text = (ROOT / "docs/writing-a-kernel.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^```cython\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [re.sub(" # .*", "", line).strip() for line in "".join(quoted).splitlines()]
    assert len(lines) > 20
    assert set(lines) <= {line.strip() for line in own.splitlines()}
