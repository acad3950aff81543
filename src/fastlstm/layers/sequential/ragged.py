"""What a `Sequential` does with lists, lengths, resets and masks, for all of its layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import check_shape, read_numbers
from fastlstm.draws import packing
from fastlstm.engine.reading.mask import Batch, read_batch
from fastlstm.engine.stack import Stack
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.linear import Linear
from fastlstm.layers.pool import Pool
from fastlstm.layers.steps.backwards import Backwards
from fastlstm.module import Gradients


class Ragged(NamedTuple):
    """A batch of which some steps may not count, as all layers see it: see `reading.mask`."""

    batch: Batch
    valid: np.ndarray | None  # where x has steps, in its shape without features; None: everywhere
    mask: np.ndarray | None = None  # bool: steps that recurrent layers skip although x has them
    masked_output: tuple[str, ...] = ()  # of each recurrent layer, where there is such a mask

    def around(self, modules: Sequence[Any]) -> tuple[Any, ...]:
        """The modules, with their lengths and resets, and without sight of what padding holds."""
        lengths = {} if self.batch.lengths is None else {"lengths": self.batch.lengths}
        options = lengths if self.batch.resets is None else {**lengths, "resets": self.batch.resets}
        outputs, output = iter(self.masked_output), "zero"
        wrapped: list[Any] = []
        for module in modules:
            own: dict[str, Any] = (
                options if module.is_recurrent else lengths if module.pools_steps else {}
            )
            if self.mask is not None and module.is_recurrent:
                output = next(outputs)
                own = {**own, "mask": self.mask, "masked_output": output}
            elif self.mask is not None and isinstance(module, Pool):
                repeated = module.kind == "last" and output == "repeat"  # then the ends hold it
                own = own if repeated else {**own, "mask": self.mask}
            wrapped.append(self._around(module, own))
            if module.pools_steps:
                break  # there are no steps after it
        return *wrapped, *modules[len(wrapped) :]

    def _around(self, module: Any, options: dict[str, Any]) -> Any:
        if self.valid is not None:
            if module.acts_on_steps:
                return OnSteps(module, self.valid)
            if not isinstance(module, (Stack, Pool)):  # these do not look at padding
                return OnZeros(module, self.valid, options)
        return WithOptions(module, options) if options else module

    def give_back(self, result: Any, *, repeat: bool = True) -> Any:
        """A result, or without `repeat` the gradient of x, in the form of x."""
        given = self.batch.given
        if self.mask is not None and not repeat and has_steps(result, self._lead):
            result = np.where(self.mask[..., None], result, result.dtype.type(0))
        if given is None or not has_steps(result, self._lead):
            return result
        return given.give_back(result, repeat=repeat)

    def features_of(self, y: Any) -> tuple[int, ...] | None:
        """The axes of a computed y after those of steps; None if y has no steps."""
        return y.shape[len(self._lead) :] if has_steps(y, self._lead) else None

    def read_gradient(self, dy: Any, features: tuple[int, ...] | None) -> Any:
        """The gradient of a computed y with these features."""
        if dy is None or features is None:
            return dy
        if self.batch.given is not None:
            return self.batch.given.read_gradient(dy, features)
        dy = read_numbers("dy", dy)
        check_shape("dy", dy, *self._lead, *features)
        return dy

    @property
    def _lead(self) -> tuple[int, ...]:
        return self.batch.x.shape[: 1 + self.batch.axes.has_batch]


def read_ragged(
    x: Any,
    lengths: Any,
    resets: Any,
    mask: Any,
    masked_output: Any,
    modules: Sequence[Any],
    *,
    batch_first: bool | None,  # of x, if the layers before say it
    reverse: tuple[bool, ...],  # of the result, if masked steps repeat it
    features: tuple[int, ...] | None = None,  # the axes of x after those of steps, if known
) -> Ragged:
    """Check the arguments of a call of these layers as far as they concern steps."""
    layouts = {batch_first, *(getattr(module, "batch_first", None) for module in modules)} - {None}
    if len(layouts) > 1:
        raise ValueError(
            "batch_first: expected one value in all layers, for a list or with lengths, resets or "
            "mask, got True and False"
        )
    batch = read_batch(
        x,
        lengths,
        resets,
        mask,
        masked_output,
        features=_features(modules) if features is None else features,
        batch_first=layouts == {True},
        reverse=reverse,
    )
    return Ragged(batch, batch.valid)


def has_steps(array: Any, lead: tuple[int, ...]) -> bool:
    """Whether an array begins with the axes `lead`, before features unless it has integers."""
    return (
        isinstance(array, np.ndarray)
        and array.shape[: len(lead)] == lead
        and (array.ndim > len(lead) or array.dtype.kind in "iu")
    )


class WithOptions:
    """A module that takes lengths or resets, with them."""

    def __init__(self, module: Any, options: dict[str, Any]):
        self._module, self._options = module, options
        self.is_recurrent = module.is_recurrent

    def __call__(self, x: Any, *state: Any, **options: Any) -> Any:
        return self._module(x, *state, **self._options, **options)

    def forward(self, x: Any, *state: Any, **options: Any) -> tuple[Any, Any]:
        result: tuple[Any, Any] = self._module.forward(x, *state, **self._options, **options)
        return result

    def backward(self, tape: Any, dy: Any, *dstate: Any, **options: Any) -> Gradients:
        grads: Gradients = self._module.backward(tape, dy, *dstate, **options)
        return grads


class OnSteps:
    """A module that acts on each step by itself, applied to the steps of a batch alone."""

    is_recurrent = False

    def __init__(self, module: Any, valid: np.ndarray):
        self._module, self._valid = module, valid

    def __call__(self, x: Any) -> Any:
        return self._unpacked(self._module(self._packed(x)), x)

    def forward(self, x: Any) -> tuple[Any, tuple[Any, Any]]:
        with packing(self._valid):
            y, tape = self._module.forward(self._packed(x))
        return self._unpacked(y, x), tape

    def backward(self, tape: Any, dy: Any, **options: Any) -> Gradients:
        grads: Gradients = self._module.backward(tape, self._packed(dy), **options)
        return grads if grads.x is None else replace(grads, x=self._unpacked(grads.x, dy))

    def _packed(self, array: Any) -> Any:
        return array[self._valid] if has_steps(array, self._valid.shape) else array

    def _unpacked(self, packed: Any, source: Any) -> Any:
        """The result of `source`'s steps in its shape, with zeros in padding."""
        if not has_steps(source, self._valid.shape):
            return packed
        result = np.zeros(self._valid.shape + packed.shape[1:], packed.dtype)
        result[self._valid] = packed
        return result


class OnZeros(WithOptions):
    """A module that takes whole batches, with zeros in padding."""

    def __init__(self, module: Any, valid: np.ndarray, options: dict[str, Any]):
        super().__init__(module, options)
        self._valid, self._pools = valid, module.pools_steps

    def __call__(self, x: Any, *state: Any, **options: Any) -> Any:
        return self._cleared_result(super().__call__(self._cleared(x), *state, **options))

    def forward(self, x: Any, *state: Any, **options: Any) -> tuple[Any, Any]:
        result, tape = super().forward(self._cleared(x), *state, **options)
        return self._cleared_result(result), tape

    def backward(self, tape: Any, dy: Any, *dstate: Any, **options: Any) -> Gradients:
        dy = dy if self._pools else self._cleared(dy)
        grads = super().backward(tape, dy, *dstate, **options)
        return grads if grads.x is None else replace(grads, x=self._cleared(grads.x))

    def _cleared_result(self, result: Any) -> Any:
        if self._pools:
            return result
        if not self.is_recurrent:
            return self._cleared(result)
        y, state = result
        return self._cleared(y), state

    def _cleared(self, array: Any) -> Any:
        if not has_steps(array, self._valid.shape):
            return array
        array = array.copy()
        array[~self._valid] = 0
        return array


def _features(modules: Sequence[Any]) -> tuple[int, ...] | None:
    """The axes of x after those of steps; None if they may be any."""
    first = next((module for module in modules if not isinstance(module, Dropout)), None)
    if isinstance(first, Linear):
        return (first.in_features,)
    if isinstance(first, Backwards):
        first = first.layer
    return (first._form.inputs,) if isinstance(first, Stack) else None
