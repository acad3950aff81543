"""The values of torch's pickles, and what stands for the classes and functions that these name.

A known name stands for a function of this module, and any other one for a `Stub`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SCALARS = (str, int, float, bytes, bool, type(None))
LARGEST_KEY = 2**60  # whole numbers above it can share their hash, which takes long
# What pickles of plain data name in Python's library: modules, and single names.
HARMLESS = {
    *("_codecs", "abc", "argparse", "array", "collections", "copy_reg", "copyreg", "datetime"),
    *("dataclasses", "decimal", "enum", "fractions", "inspect", "ipaddress", "logging", "numbers"),
    *("pathlib", "random", "re", "string", "time", "types", "typing", "uuid", "zoneinfo"),
}
BUILTINS = (
    *("bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list"),
    *("object", "range", "set", "slice", "str", "tuple", "type"),
)
HARMLESS_NAMES = {
    *(("builtins", name) for name in BUILTINS),
    *(("__builtin__", name) for name in (*BUILTINS, "long", "unicode", "xrange")),
    *(("functools", "partial"), ("operator", "attrgetter"), ("operator", "itemgetter")),
}


class Global(NamedTuple):
    """The name of a class or function."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


class Storage(NamedTuple):
    """The numbers behind tensors, in their file."""

    kind: str  # the name of torch's class
    key: str
    size: int  # numbers
    offset: int = 0  # of a view, in numbers of the whole storage


class Tensor(NamedTuple):
    """A tensor: its place in a storage, in numbers."""

    storage: Storage
    offset: Any
    shape: Any
    strides: Any
    dtype: str | None = None  # of torch; None if it is that of the storage


@dataclass(eq=False, repr=False)
class Stub:
    """What an unknown class or function would have made."""

    origin: Any
    arguments: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.origin}"


def is_plain(key: Any) -> bool:
    """Whether a dict may have such a key: its hash takes no long time."""
    if isinstance(key, int):
        return abs(key) <= LARGEST_KEY
    return isinstance(key, (*SCALARS, Stub))


def call(function: Any, arguments: Any) -> Any:
    """Return what the call of a known function makes, and a `Stub` for that of another one."""
    if not isinstance(arguments, tuple):
        raise ValueError("the pickle calls a function without a tuple of arguments")
    known = KNOWN.get(function) if isinstance(function, Global) else None
    return known(*arguments) if known is not None else make(function, arguments)


def make(origin: Any, arguments: Any) -> Stub:
    """Return a `Stub`; ValueError if making the real value would run code of Python's library."""
    if isinstance(origin, Stub):
        raise ValueError(f"the pickle would run what {origin} returns, which is refused")
    if not isinstance(origin, Global):
        raise ValueError(f"the pickle calls a {type(origin).__name__}")
    root = origin.module.partition(".")[0]
    is_own = root in sys.stdlib_module_names or root == "__builtin__"
    if is_own and root not in HARMLESS and origin not in HARMLESS_NAMES:
        raise ValueError(f"the pickle would run {origin}, which is refused")
    return Stub(origin, arguments)


def set_state(target: Any, state: Any) -> Any:
    """Return an object with its state: a `Stub` has it, known values do without."""
    if isinstance(target, Stub):
        target.state = state
        return _as_array(target)
    if isinstance(target, (dict, Tensor, np.ndarray)):  # as the _metadata of a state_dict
        return target
    raise ValueError(f"the pickle sets the state of a {type(target).__name__}")


def _as_array(stub: Stub) -> Any:
    """The array of NumPy that a stub stands for; the stub itself if it stands for none."""
    origin, state = stub.origin, stub.state
    if origin.name != "_reconstruct" or origin.module not in ARRAYS:
        return stub
    if not isinstance(state, tuple) or len(state) != 5:
        return stub
    _, shape, dtype, is_fortran, data = state
    return _array(data, dtype, shape, "F" if is_fortran is True else "C", stub)


def _array(data: Any, dtype: Any, shape: Any, order: Any, otherwise: Any) -> Any:
    if not isinstance(dtype, Stub) or dtype.origin != ("numpy", "dtype"):
        return otherwise
    code, state = dtype.arguments[0] if dtype.arguments else None, dtype.state
    if not isinstance(code, str) or code not in ("f2", "f4", "f8") or not isinstance(data, bytes):
        return otherwise
    end = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    kind = np.dtype(f"{'>' if end == '>' else '<'}{code}")
    sizes = read_sizes("shape", shape)
    return np.frombuffer(data, kind).reshape(sizes, order="F" if order == "F" else "C")


def read_sizes(what: str, value: Any) -> tuple[int, ...]:
    """Return `value` as whole numbers from 0."""
    if not isinstance(value, (tuple, list)) or not all(
        type(size) is int and 0 <= size < 2**63 for size in value
    ):
        raise ValueError(f"{what}: expected whole numbers from 0")
    return tuple(value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *others: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("the pickle makes a tensor without a storage")
    return Tensor(storage, offset, shape, strides)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    name = dtype.name if isinstance(dtype, Global) else "unknown"
    return _tensor(storage, offset, shape, strides)._replace(dtype=name)


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return call(function, arguments)


def _first(value: Any, *others: Any) -> Any:
    return value


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("the pickle encodes something other than bytes")
    return text.encode("latin1")


def _mapping(*arguments: Any) -> dict[Any, Any]:
    given = arguments[0] if arguments else ()
    pairs = given.items() if isinstance(given, dict) else given
    if not isinstance(given, (dict, list, tuple)):  # the factory of a defaultdict
        pairs = ()
    return {
        pair[0]: pair[1]
        for pair in pairs
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and is_plain(pair[0])
    }


def _sequence(*arguments: Any) -> list[Any]:
    return list(arguments[0]) if arguments and isinstance(arguments[0], (list, tuple)) else []


def _reconstructor(kind: Any, *_: Any) -> Stub:
    return make(kind, ())


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return _array(data, dtype, shape, order, Stub(Global("numpy", "ndarray"), ()))


ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
KNOWN: dict[Global, Callable[..., Any]] = {
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_of_dtype,
    Global("torch._utils", "_rebuild_parameter"): _first,
    Global("torch._utils", "_rebuild_parameter_with_state"): _first,
    Global("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    Global("torch", "Size"): _first,
    Global("torch.jit._pickle", "build_intlist"): _first,
    Global("torch.jit._pickle", "build_doublelist"): _first,
    Global("torch.jit._pickle", "build_boollist"): _first,
    Global("torch.jit._pickle", "build_tensorlist"): _first,
    Global("torch.jit._pickle", "restore_type_tag"): _first,
    Global("_codecs", "encode"): _encode,
    Global("copyreg", "_reconstructor"): _reconstructor,
    Global("copy_reg", "_reconstructor"): _reconstructor,
    **{Global("collections", name): _mapping for name in ("OrderedDict", "defaultdict", "Counter")},
    **{Global(b, "dict"): _mapping for b in ("builtins", "__builtin__")},
    **{
        Global(b, name): _sequence
        for b in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "list", "tuple")
    },
    **{Global(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
