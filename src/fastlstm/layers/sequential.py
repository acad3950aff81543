"""Layers one after another."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.layers.module import Gradients, Module
from fastlstm.layers.tape import Tape, check_tape


@dataclass(slots=True, eq=False)
class SequentialTape(Tape):
    tapes: list[Any]  # one for every layer


class Sequential(Module):
    """Each layer takes what the one before it gives.

    Without a recurrent layer, `model(x)` returns y and `model.forward(x)` returns (y, tape). As
    soon as one layer is recurrent they return (y, state) and ((y, state), tape), and take `state`,
    `lengths`, `resets` and `threads`, which go to every recurrent layer.

    `state` is a tuple with one entry for every recurrent layer, in order, and each entry is what
    that layer takes: (h, c) for an LSTM, None for zeros. A Sequential with one LSTM thus takes
    ``((h, c),)``. `dstate` and `Gradients.state` have the same form.

    Parameters
    ----------
    *modules : Module
        The layers. Parameters are named by position, as torch does: "0.weight_ih_l0".

    Raises
    ------
    TypeError
        Not a layer.
    ValueError
        A layer with parameters stands twice: the two places would share its gradients' names.
    """

    def __init__(self, *modules: Module):
        for index, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"modules[{index}]: expected a layer, got {module!r}")
        self._modules: tuple[Any, ...] = modules  # Any: recurrent ones take more than Module says
        self.is_recurrent = any(module.is_recurrent for module in modules)
        names: dict[int, str] = {}
        for name, array in self.parameters().items():
            if names.setdefault(id(array), name) != name:
                raise ValueError(
                    f"modules: expected every layer once, but {names[id(array)]} is also {name}"
                )

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        threads: int | None = None,
    ) -> Any:
        """Apply every layer: inference.

        Parameters
        ----------
        x : what the first layer takes
        state : tuple or None
            One entry for every recurrent layer.
        lengths, resets, threads
            Passed on to every recurrent layer.

        Returns
        -------
        y, or (y, state) with a recurrent layer

        Raises
        ------
        ValueError
            `state` has another number of entries, or there is no recurrent layer to take `state`,
            `lengths`, `resets` or `threads`.
        """
        options = self._options(lengths=lengths, resets=resets, threads=threads)
        states = self._entries("state", state)
        finals = []
        for module in self._modules:
            if module.is_recurrent:
                x, final = module(x, next(states), **options)
                finals.append(final)
            else:
                x = module(x)
        return (x, tuple(finals)) if self.is_recurrent else x

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        threads: int | None = None,
    ) -> tuple[Any, SequentialTape]:
        """Every layer's `forward`: as a call, with the tape for `backward`."""
        options = self._options(lengths=lengths, resets=resets, threads=threads)
        states = self._entries("state", state)
        finals, tapes = [], []
        for module in self._modules:
            if module.is_recurrent:
                (x, final), tape = module.forward(x, next(states), **options)
                finals.append(final)
            else:
                x, tape = module.forward(x)
            tapes.append(tape)
        return (x, tuple(finals)) if self.is_recurrent else x, SequentialTape(self, tapes)

    def backward(
        self, tape: Any, dy: Any = None, dstate: Any = None, *, threads: int | None = None
    ) -> Gradients:
        """Every layer's `backward`, from the last to the first.

        Parameters
        ----------
        tape : from `forward`
        dy : gradient of y, in y's shape
            None stands for zeros where the last layer is recurrent.
        dstate : tuple or None
            Gradient of the final state, in the form of `state`.
        threads : int or None
            Passed on to every recurrent layer.

        Returns
        -------
        Gradients
            Of x, of the initial state, and of every parameter under its prefixed name.

        Raises
        ------
        ValueError
            The tape is another layer's or was used, or a gradient's shape does not fit.
        """
        tape = check_tape(tape, SequentialTape, self)
        options = self._options(threads=threads)
        dstates = self._entries("dstate", dstate, reverse=True)
        tape.used = True
        by_layer: list[Gradients] = []
        for module in reversed(self._modules):
            kept = tape.tapes.pop()  # not indexed, so that its memory is free after the layer
            if module.is_recurrent:
                gradients = module.backward(kept, dy, next(dstates), **options)
            else:
                gradients = module.backward(kept, dy)
            dy = gradients.x
            by_layer.insert(0, gradients)
        states = [
            gradients.state
            for module, gradients in zip(self._modules, by_layer, strict=True)
            if module.is_recurrent
        ]
        return Gradients(
            x=dy,
            state=tuple(states) if self.is_recurrent else None,
            params=_prefixed([gradients.params for gradients in by_layer]),
        )

    def parameters(self) -> Mapping[str, np.ndarray]:
        """Every parameter by name ("0.weight_ih_l0"), as read-only arrays."""
        return _prefixed([module.parameters() for module in self._modules])

    def _replace_parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        for index, module in enumerate(self._modules):
            own = {name: arrays[f"{index}.{name}"] for name in module.parameters()}
            module._replace_parameters(own)

    def _options(self, **options: Any) -> dict[str, Any]:
        """What is passed on to recurrent layers."""
        for name, value in options.items():
            if value is not None and not self.is_recurrent:
                raise ValueError(f"{name}: no layer is recurrent, so expected None")
        return options

    def _entries(self, name: str, state: Any, *, reverse: bool = False) -> Iterator[Any]:
        """The entry of every recurrent layer, in the order of a walk."""
        count = sum(module.is_recurrent for module in self._modules)
        if state is None:
            return iter([None] * count)
        self._options(**{name: state})
        if not isinstance(state, (tuple, list)) or len(state) != count:
            got = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise ValueError(
                f"{name}: expected a tuple with an entry for each of {count} recurrent layers, "
                f"got {got}"
            )
        return reversed(state) if reverse else iter(state)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int | slice) -> Any:
        """A layer, or for a slice a Sequential of the same layers."""
        if isinstance(index, slice):
            return Sequential(*self._modules[index])
        return self._modules[index]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules)

    def __repr__(self) -> str:
        layers = [f"({index}): {module!r}" for index, module in enumerate(self._modules)]
        return f"Sequential(\n{textwrap.indent(chr(10).join(layers), '  ')}\n)"


def _prefixed(by_layer: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{index}.{name}": array
        for index, own in enumerate(by_layer)
        for name, array in own.items()
    }
