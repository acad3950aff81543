"""Modules in a row: their order, what is known between them, and their parameters of one moment."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastlstm.changes import CHANGES
from fastlstm.checks import takes
from fastlstm.engine.one_step import OneStep
from fastlstm.engine.stack import Stack
from fastlstm.module import Module, Output


class Row(Module):
    """Modules, each of which acts on the result of the one before."""

    # The last change that was seen, and the layers as they were after it.
    _last_bound: tuple[object, tuple[Any, ...]] = None, ()
    _last_attributes: object = None  # the last change of attributes that was seen
    _before = Output()  # what is known of x within another Sequential
    _marks_steps = False  # whether a call must look at x first

    def __init__(self, *modules: Module):
        for index, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"modules[{index}]: expected a layer, got {module!r}")
            if isinstance(module, OneStep):
                kind = type(module).__name__
                raise ValueError(
                    f"modules[{index}]: expected a layer that returns an output, got {kind}, "
                    f"which returns its state; use {kind.removesuffix('Cell')}"
                )
        self._modules: tuple[Any, ...] = modules  # Any: recurrent layers have more arguments
        self._child_modules = {str(index): module for index, module in enumerate(modules)}
        self._no_states = (None,) * sum(module.is_recurrent for module in modules)
        self.is_recurrent = bool(self._no_states)
        self.acts_on_steps = all(module.acts_on_steps for module in modules)
        self.pools_steps = any(module.pools_steps for module in modules)
        self._first_takes_with_x = bool(modules) and takes(modules[0].backward, "with_x")
        names: dict[int, str] = {}
        for name, array in self.parameters().items():
            if names.setdefault(id(array), name) != name:
                raise ValueError(
                    f"modules: expected every layer once, but {names[id(array)]} is also {name}"
                )
        self._check_order()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules)

    def _argument(self, name: str, default: Any) -> Any:
        return self._modules if name == "modules" else super()._argument(name, default)

    def _leaves(self) -> Iterator[Any]:
        """The layers, with those of inner Sequentials in their place."""
        for module in self._modules:
            yield from module._leaves() if isinstance(module, Row) else (module,)

    def _bind_modules(self) -> tuple[Any, ...]:
        """The layers, bound to their parameters of this moment."""
        if self._unbound is not self:  # the layers are bound already, by the model around it
            return self._modules
        with CHANGES.lock:
            change, attributes, twins = CHANGES.last, CHANGES.attributes, dict[int, Module]()
            if self._last_attributes is attributes and len(self._parts()) == 1 + len(self._modules):
                pairs = zip(self._last_bound[1], self._modules, strict=True)
                modules = tuple(twin._renewed(module) for twin, module in pairs)
            else:
                copies = [module._bound_copy(twins) for module in self._modules]
                modules = _in_a_row(copies, Output())
            self.__dict__.update(_last_bound=(change, modules), _last_attributes=attributes)
        return modules

    def _bound_copy(self, twins: dict[int, Module], bind: bool = True) -> Module:
        twin = super()._bound_copy(twins, bind)
        if bind:
            twin.__dict__["_modules"] = _in_a_row(twin.__dict__["_modules"], Output())
        return twin

    def _output(self, before: Output) -> Output:
        for module in self._modules:
            before = module._output(before)
        return before

    def _after(self, before: Output) -> Module:
        placed = object.__new__(type(self))
        modules = _in_a_row(self._modules, before)
        placed.__dict__.update(self.__dict__, _before=before, _modules=modules)
        return placed

    def _check_order(self) -> None:
        """Raise if a layer reads steps after they were pooled, or in another layout."""
        before, pool = Output(), ""
        said = None, ""  # the batch_first of x, and the layer that says so
        for index, module in enumerate(self._modules):
            for leaf in module._leaves() if isinstance(module, Row) else (module,):
                kind = type(leaf).__name__
                if before.pooled and (leaf.pools_steps or isinstance(leaf, Stack)):
                    raise ValueError(
                        f"modules: expected no steps to be read after {pool}, got {kind}"
                    )
                wanted = leaf._inputs
                if None not in (wanted, before.features) and wanted != before.features:
                    raise ValueError(
                        f"modules[{index}]: expected a layer of {before.features} inputs, the "
                        f"outputs of the one before, got {kind} of {wanted}"
                    )
                said = _layout_after(leaf, f"modules[{index}], {kind}", *said)
                before, pool = leaf._output(before), kind if leaf.pools_steps else pool


def _layout_after(leaf: Any, name: str, before: bool | None, said_by: str) -> tuple[Any, str]:
    """The batch_first of a layer's result, None if unknown, and the layer that says so.

    Raises ValueError if the layer says another one of x than the layer before it.
    """
    own = getattr(leaf, "batch_first", None)
    if own is None:
        own = leaf._output(Output()).batch_first
    if not (leaf.is_recurrent or leaf.acts_on_steps or leaf.pools_steps):
        return own, name  # a module of one's own, which may swap the axes
    if None not in (own, before) and own != before:
        raise ValueError(
            f"modules: expected one batch_first in all layers, got {before} in {said_by}, and "
            f"{own} in {name}, which would take rows for steps; give both the same"
        )
    return (before, said_by) if own is None else (own, name)


def _in_a_row(modules: Iterable[Any], before: Output) -> tuple[Any, ...]:
    """The modules as each acts on the result of the one before."""
    placed = []
    for module in modules:
        placed.append(module._after(before))
        before = module._output(before)
    return tuple(placed)
