"""The layout of src: which part of the package imports which, read from the source."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
SOURCES = [path for path in sorted(SRC.rglob("*")) if path.suffix in (".py", ".pyx", ".pxi")]
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
    if path.suffix == ".py"
}
MOST_FILES = 12  # of a folder, without the doors
DOORS = "sklearn.py", "torch.py"

# The floors from the ground up, each with the floors that it imports. A floor is a module or a
# package, without those parts of it that are floors of their own.
KERNELS = "kernels", "kernels.arguments", "kernels.reference", "kernels.reference.core"
FLOORS = {
    "_version": (),
    "changes": (),
    "checks": (),
    "kernels.arguments": (),
    "kernels.reference.core": ("kernels.arguments",),
    "kernels.reference.cells": ("kernels.arguments", "kernels.reference.core"),
    "kernels.reference": ("kernels.reference.core", "kernels.reference.cells"),
    "kernels": ("changes", "kernels.arguments", "kernels.reference"),
    "draws": (),
    "module": ("changes", "checks"),
    "safetensors": ("checks",),
    "threads": ("changes", "checks"),
    "threads.limits": ("_version", "kernels", "threads"),
    "distributed": ("checks", "module", "threads"),  # what ranks tell one another, and no training
    "training": (  # no layer
        *("_version", "changes", "checks", "draws", "module", "safetensors", "distributed"),
        *KERNELS[:2],
    ),
    "engine": ("changes", "checks", "draws", "module", "threads", *KERNELS),  # no layer either
    "layers": ("changes", "checks", "draws", "module", "engine", *KERNELS),
    "in_torch": ("checks", "module", "threads", "engine", "layers", "kernels.arguments"),
    "torch": ("checks", "in_torch"),
    "in_sklearn": ("checks", "module", "layers", "training"),
    "sklearn": ("checks", "in_sklearn"),
    "dask": ("checks", "module", "training"),
    "files": ("checks", "module", "engine", "layers", "safetensors"),
    "onnx": ("checks", "module", "engine", "layers", "kernels.arguments"),  # no kernels
    "interop": ("checks", "module", "engine", "layers", "in_torch", "files", "onnx", "safetensors"),
    "inspection": (
        *("changes", "checks", "module", "engine", "layers"),
        *("kernels.arguments", "kernels.reference.core"),
    ),
    "_config": ("_version", "kernels", "threads"),
    "fastlstm": (
        *("_version", "kernels", "module", "threads", "threads.limits", "distributed", "training"),
        *("engine", "files", "layers", "onnx", "interop", "inspection", "_config"),
    ),
    "commands": ("fastlstm",),
    "__main__": ("checks", "fastlstm", "commands"),
}


def floor_of(module):
    """The part of the package that a module belongs to."""
    name = module.removeprefix("fastlstm.")
    while name not in FLOORS:
        name = name.rpartition(".")[0]
        assert name, f"{module} is on no floor: give it an entry in FLOORS"
    return name


def imported(tree):
    """The modules that code imports, of this package and of others, wherever it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: expected an import by the full name"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def tree_of(module):
    return ast.parse(MODULES[module].read_text())


IMPORTS = {module: set(imported(tree_of(module))) for module in MODULES}


def test_every_floor_lies_on_those_below():
    floors = list(FLOORS)
    assert {floor_of(module) for module in MODULES} == set(floors)
    for floor, below in FLOORS.items():
        assert set(below) <= set(floors[: floors.index(floor)]), floor


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_floor_may(module):
    own = floor_of(module)
    reached = {floor_of(name) for name in IMPORTS[module] if name in MODULES}
    assert reached <= {own, *FLOORS[own]}


@pytest.mark.parametrize("module", MODULES)
def test_the_package_imports_only_what_it_has(module):
    own = {name for name in IMPORTS[module] if name.split(".")[0] == "fastlstm"}
    assert own <= set(MODULES)  # compiled modules have no .py: kernels/__init__.py loads them


def test_no_circle_of_imports():
    inner = {module: names & set(MODULES) for module, names in IMPORTS.items()}
    TopologicalSorter(inner).prepare()  # raises CycleError


@pytest.mark.parametrize("module", MODULES)
def test_other_packages_are_imported_within_functions(module):
    """An import at the top would make `import fastlstm` need them, or take long."""
    tree = tree_of(module)
    for node in list(ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = []
    at_top = {name.split(".")[0] for name in imported(tree)}
    made_for = module.removeprefix("fastlstm.interop.").partition(".")[0]
    if floor_of(module) in ("torch", "in_torch", "sklearn", "in_sklearn", "dask"):
        made_for = floor_of(module).removeprefix("in_")
    assert at_top <= {"fastlstm", "numpy", made_for, *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parts.count("core")],
    ids=lambda path: str(path.relative_to(SRC / "fastlstm")),
)
def test_the_core_of_the_kernels_names_no_cell(path):
    code = path.read_text()
    if path.suffix == ".py":
        code = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)  # in .pxi files, these hold C
    code = re.sub(r"#.*", "", code).lower().replace("fastlstm", "")
    assert re.findall("lstm|gru|rnn", code) == []


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in SOURCES}),
    ids=lambda path: str(path.relative_to(SRC)),
)
def test_a_folder_has_few_files(folder):
    files = [path.name for path in SOURCES if path.parent == folder and path.name not in DOORS]
    assert len(files) <= MOST_FILES


def test_names_of_tests_are_unique():
    """pytest imports test modules by their names alone."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
