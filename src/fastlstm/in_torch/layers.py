"""The layers of torch.nn with the kernels of this library in their `forward`."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from fastlstm.in_torch import autograd, ops
from fastlstm.in_torch.fallback import can_compute, is_exporting, takes_over
from fastlstm.in_torch.packed import Form

Tensors = tuple[torch.Tensor, ...]


class _Layer(nn.Module):
    """What all layers have in common."""

    theirs: ClassVar[type[nn.Module]]  # the class of torch.nn
    parts: ClassVar[int] = 1  # arrays of the state

    def __init__(self, *args: Any, **options: Any):
        # torch's constructor reads the arguments and draws the weights.
        self.__dict__.update(self.theirs(*args, **options).__dict__)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Compute as the layer of torch.nn does, with its arguments and its results.

        What these kernels do not compute, torch's own layer does: see `fastlstm.torch`.
        """
        result = self._compute(input, hx) if takes_over() else None
        if result is not None:
            return result
        if torch.compiler.is_compiling() and not is_exporting():
            from fastlstm.in_torch import outside

            return outside.forward(self, input, hx)
        return self.theirs.forward(self, input, hx)

    def _compute(self, input: Any, hx: Any) -> Any:
        """The result, or None for torch's own layer to compute it, or to raise its error."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> nn.Module:
        """Refuse `torch.jit.script`, which would exchange the layers of the model itself."""
        raise TypeError(
            "torch.jit.script does not take layers of fastlstm.torch: script "
            "fastlstm.torch.restore(copy.deepcopy(model))"
        )

    def _own_weights(self, names: Any) -> list[torch.Tensor]:
        parameters = self._parameters
        try:
            return [parameters[name] for name in names]  # type: ignore[misc]
        except KeyError:  # a parametrization computes them
            return [getattr(self, name) for name in names]

    def _parts_of(self, hx: Any) -> Any:
        """The arrays of a caller's state; None where torch's own layer has to look at it."""
        if hx is None:
            return ()
        if self.parts == 1:
            return (hx,)
        return tuple(hx) if isinstance(hx, (tuple, list)) and len(hx) == 2 else None


class _Sequence(_Layer, nn.RNNBase):
    """A layer over sequences.

    Its base is not torch.nn.LSTM, GRU or RNN, since torch.compile refuses their subclasses.
    """

    def _compute(self, input: Any, hx: Any) -> Any:
        weights = self._own_weights(self._flat_weights_names)
        ragged = isinstance(input, PackedSequence)
        if ragged and torch.compiler.is_compiling():  # the number of rows is not known then
            return None
        x, state = input.data if ragged else input, self._parts_of(hx)
        if state is None or not can_compute(x, state, weights):
            return None
        if not self._fits(x, state, input.batch_sizes if ragged else None):
            return None
        if ragged:
            return self._compute_ragged(input, state, weights)
        y, *final = self._call(x, None, state, weights)
        return y, tuple(final) if self.parts > 1 else final[0]

    def _compute_ragged(self, input: PackedSequence, state: Any, weights: Any) -> Any:
        """As `_compute`; the state is in the caller's order of rows, x is not."""
        x, batch_sizes, order, back = input
        if order is not None:
            state = tuple([part.index_select(1, order) for part in state])
        y, *final = self._call(x, batch_sizes, state, weights)
        if back is not None:
            final = [part.index_select(1, back) for part in final]
        result = PackedSequence(y, batch_sizes, order, back)
        return result, tuple(final) if self.parts > 1 else final[0]

    def _fits(self, x: torch.Tensor, state: Any, batch_sizes: torch.Tensor | None) -> bool:
        """Whether the shapes of x and the state are right, and no axis of x is empty."""
        shape = x.shape
        axes = len(shape)
        if axes not in ((2, 3) if batch_sizes is None else (2,)):
            return False
        if shape[-1] != self.input_size or 0 in shape:
            return False
        if not state:
            return True
        batch: Any = ()
        if batch_sizes is not None:
            batch = (int(batch_sizes[0]),)
        elif axes == 3:
            batch = (shape[0 if self.batch_first else 1],)
        rows = self.num_layers * (1 + self.bidirectional)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        expected = [(rows, *batch, size) for size in sizes[: self.parts]]
        return [tuple(part.shape) for part in state] == expected

    def _call(self, x: Any, batch_sizes: Any, state: Any, weights: Any) -> Tensors:
        """y and the parts of the final state, with dropout between layers in training."""
        form = Form(
            self.mode,
            self.input_size,
            self.hidden_size,
            self.proj_size or self.hidden_size,
            self.num_layers,
            self.bias,
            self.bidirectional,
            self.batch_first and batch_sizes is None and x.dim() == 3,
            False,
            x.dtype,
        )
        if not (self.training and self.dropout and self.num_layers > 1):
            return _call(form, x, batch_sizes, state, weights)
        if not form.batch_first:
            return _with_dropout(form, x, batch_sizes, state, weights, self.dropout)
        form = form._replace(batch_first=False)
        y, *final = _with_dropout(form, x.transpose(0, 1), None, state, weights, self.dropout)
        return y.transpose(0, 1), *final


class LSTM(_Sequence):
    """`torch.nn.LSTM` on the kernels of fastlstm.

    Its arguments, parameters, results and errors are those of torch.nn.LSTM.
    """

    theirs = nn.LSTM
    parts = 2
    # What the `forward` of torch.nn.LSTM calls.
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args: Any = nn.LSTM.check_forward_args
    permute_hidden: Any = nn.LSTM.permute_hidden


class GRU(_Sequence):
    """`torch.nn.GRU` on the kernels of fastlstm.

    Its arguments, parameters, results and errors are those of torch.nn.GRU.
    """

    theirs = nn.GRU


class RNN(_Sequence):
    """`torch.nn.RNN` on the kernels of fastlstm.

    Its arguments, parameters, results and errors are those of torch.nn.RNN.
    """

    theirs = nn.RNN


class _Cell(_Layer, nn.RNNCellBase):
    """A layer of one step."""

    @property
    def _mode(self) -> str:
        """As the attribute `mode` of layers over sequences."""
        kind = self.theirs.__name__.removesuffix("Cell")
        return kind if kind != "RNN" else f"RNN_{str(self.nonlinearity).upper()}"

    def _compute(self, input: Any, hx: Any) -> Any:
        if getattr(self, "nonlinearity", "tanh") not in ("tanh", "relu"):
            return None  # torch raises an error
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = self._own_weights(names[: 4 if self.bias else 2])
        state = self._parts_of(hx)
        if state is None or not can_compute(input, state, weights):
            return None
        shape = input.shape
        if len(shape) not in (1, 2) or shape[-1] != self.input_size or 0 in shape:
            return None
        for part in state:
            if part.shape != (*shape[:-1], self.hidden_size):
                return None
        H = self.hidden_size
        form = Form(
            self._mode, self.input_size, H, H, 1, self.bias, False, False, True, input.dtype
        )
        result = _call(form, input, None, state, weights)
        return result if self.parts > 1 else result[0]


class LSTMCell(_Cell, nn.LSTMCell):
    """`torch.nn.LSTMCell` on the kernels of fastlstm.

    Its arguments, parameters, results and errors are those of torch.nn.LSTMCell.
    """

    theirs = nn.LSTMCell
    parts = 2


class GRUCell(_Cell, nn.GRUCell):
    """`torch.nn.GRUCell` on the kernels of fastlstm.

    Its arguments, parameters, results and errors are those of torch.nn.GRUCell.
    """

    theirs = nn.GRUCell


class RNNCell(_Cell, nn.RNNCell):
    """`torch.nn.RNNCell` on the kernels of fastlstm.

    Its arguments, parameters, results and errors are those of torch.nn.RNNCell.
    """

    theirs = nn.RNNCell


LAYERS: tuple[type[_Layer], ...] = (LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell)
for page in LAYERS:
    page.__module__ = "fastlstm.torch"  # where pickles find it


def _with_dropout(
    form: Form, x: torch.Tensor, batch_sizes: Any, state: Any, weights: Any, p: float
) -> Tensors:
    """The layers one after the other, with dropout between them, drawn as torch's own draws it."""
    D = 1 + form.bidirectional
    count = len(weights) // form.layers
    finals = []
    for k in range(form.layers):
        if k:
            x = nn.functional.dropout(x, p, True)
        own = form._replace(layers=1, inputs=form.inputs if not k else D * form.P)
        parts = tuple([part[k * D : (k + 1) * D] for part in state])
        x, *final = _call(own, x, batch_sizes, parts, weights[k * count : (k + 1) * count])
        finals.append(final)
    return x, *map(torch.cat, zip(*finals, strict=True))


def _call(form: Form, x: Any, batch_sizes: Any, state: Any, weights: Any) -> Tensors:
    if torch.compiler.is_compiling():
        return ops.call(form, x, state, weights)
    return autograd.call(form, x, batch_sizes, state, weights)
