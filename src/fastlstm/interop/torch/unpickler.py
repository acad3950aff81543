"""The pickles of torch's files, read as plain values. Nothing that a pickle names is ever run.

A pickle is a program for a stack machine. This one has its own machine, whose values are numbers,
text, bytes, lists, tuples, dicts and those of `values`. Sets are lists.
"""

import pickletools
from collections.abc import Callable
from sys import getsizeof
from typing import Any

from fastlstm.interop.torch.values import Global, Stub, call, is_plain, make, set_state

MOST_STEPS = 1_000_000  # of a pickle: a vocabulary of 200,000 words, or about a second
STEP, ENTRY = 16, 100  # bytes of memory that a step takes, and an entry of a dict


def load(file: Any, persistent: Callable[[Any], Any], most: int) -> tuple[Any, int]:
    """Return the value of one pickle, and how much of `most` is left.

    Parameters
    ----------
    file : object with read and readline
        It stands after the pickle afterwards.
    persistent : function
        Returns the value of a persistent id.
    most : int
        How many bytes of memory the values may take together.

    Raises
    ------
    ValueError or another error of `fastlstm.interop.reading.DAMAGE`
        The pickle is damaged, would run code, or takes more memory.
    """
    machine = _Machine(persistent, most)
    return machine.run(file), machine.left


class _Machine:
    def __init__(self, persistent: Callable[[Any], Any], most: int):
        self.persistent = persistent
        self.left = most
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: Any) -> Any:
        for _ in range(MOST_STEPS):
            code = file.read(1)
            if code == b".":
                return self.pop()
            step = STEPS.get(code)
            if step is None:
                raise ValueError(_unknown(code))
            step(self, file)
            self.left -= STEP
            if self.left < 0:
                raise ValueError("the pickle takes more memory than a model's file should")
        raise ValueError(f"expected a pickle of at most {MOST_STEPS} steps")

    def push(self, value: Any) -> None:
        self.left -= getsizeof(value)
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the pickle takes a value that is not there")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("the pickle takes a mark that is not there")
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def discard(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def put(self, index: Any) -> None:
        self.left -= ENTRY
        self.memo[len(self.memo) if index is None else index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the pickle takes value {index}, which is not there")
        self.stack.append(self.memo[index])

    def tuple_of(self, count: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    def append(self, values: list[Any]) -> None:
        target = self.top()
        self.left -= 16 * len(values)
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Stub):  # a list of an unknown class holds no state
            raise ValueError(f"the pickle appends to a {type(target).__name__}")

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Stub):
            target = target.items
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError(f"the pickle sets {len(values)} items of a {type(target).__name__}")
        self.left -= ENTRY * len(values) // 2
        for key, value in zip(values[::2], values[1::2], strict=True):
            if is_plain(key):  # a name cannot be of another kind
                target[key] = value

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("the pickle names a class by something other than text")
        self.push(Global(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(call(function, arguments))

    def new(self, _: Any) -> None:
        arguments, origin = self.pop(), self.pop()
        self.push(make(origin, arguments))

    def new_with_keywords(self, _: Any) -> None:
        keywords, arguments, origin = self.pop(), self.pop(), self.pop()
        self.push(make(origin, (arguments, keywords)))

    def old_object(self, _: Any) -> None:
        values = self.pop_mark()
        self.push(make(values[0], tuple(values[1:])))

    def instance(self, origin: Global) -> None:
        self.push(make(origin, tuple(self.pop_mark())))

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.pop()
        self.push(set_state(target, state))

    def persistent_id(self, _: Any) -> None:
        self.push(self.persistent(self.pop()))


VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_SET": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "LIST": lambda m, _: m.push(m.pop_mark()),
    "FROZENSET": lambda m, _: m.push(m.pop_mark()),
    "DICT": lambda m, _: _dict_of(m),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.append(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "OBJ": _Machine.old_object,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
NAMES: dict[str, Callable[[_Machine, Global], None]] = {
    "GLOBAL": _Machine.push,
    "INST": _Machine.instance,
}
CODES = {operation.code.encode("latin1"): operation for operation in pickletools.opcodes}


def _unknown(code: bytes) -> str:
    if not code:
        return "the pickle has no end"
    name = CODES[code].name if code in CODES else repr(code)
    return f"expected a pickle of plain values, got the operation {name}"


def _step(operation: Any) -> Callable[[_Machine, Any], None] | None:
    """How the machine does an operation, whose argument it reads from a file."""
    name = operation.name
    read = (lambda file: None) if operation.arg is None else operation.arg.reader
    if name in VALUES:
        return lambda machine, file: machine.push(read(file))
    if name in CONSTANTS:
        return lambda machine, file: machine.stack.append(CONSTANTS[name])
    if name in NAMES:
        return lambda m, file: NAMES[name](m, Global(_read_line(file), _read_line(file)))
    if name in OPERATIONS:
        do = OPERATIONS[name]
        return lambda machine, file: do(machine, read(file))
    return (lambda machine, file: read(file)) if name in ("PROTO", "FRAME") else None


STEPS = {code: step for code, operation in CODES.items() if (step := _step(operation))}


def _read_line(file: Any) -> str:
    line: bytes = file.readline()
    if not line.endswith(b"\n"):
        raise ValueError("the pickle has no end")
    return line[:-1].decode()


def _dict_of(machine: _Machine) -> None:
    values = machine.pop_mark()
    machine.push({})
    machine.set_items(values)
