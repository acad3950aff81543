"""Layers of torch that compute on the kernels of this library: `torch.nn`'s own in all else.

`LSTM`, `GRU`, `RNN` and their cells have torch's arguments, parameters, results and errors, and
`replace` makes the layers of a model such layers, in place. Optimizers, `state_dict`, hooks and
`torch.compile(fullgraph=True)` do as with layers of torch.nn, and so does dropout, which takes
torch's random numbers. Every call sees the weights as they are then, however they were changed.

They compute in float32 and float64 on the CPU. For other dtypes and devices, under autocast and
within `torch.func`, torch's own layers compute, with one warning where that is a loss; in what
`torch.export`, `torch.onnx.export` and `torch.jit.trace` record, theirs stand, too. What they do
not do: gradients of gradients, and `torch.jit.script`; both raise an error.

Examples
--------
>>> import torch, fastlstm.torch
>>> lstm = fastlstm.torch.LSTM(3, 5)
>>> y, (h, c) = lstm(torch.ones(7, 2, 3))
>>> y.sum().backward()
>>> y.shape, lstm.weight_ih_l0.grad.shape
(torch.Size([7, 2, 5]), torch.Size([20, 3]))
"""

try:
    import torch as _torch
except ImportError as error:
    from fastlstm.checks import missing

    raise missing("fastlstm.torch", "torch", "torch") from error

# Since torch 2.7 and 2.8: whether a model is exported, and whether hooks take what autograd saves.
if not (
    hasattr(_torch.compiler, "is_exporting")
    and hasattr(_torch._C._autograd, "_top_saved_tensors_default_hooks")
):
    raise ImportError(f"fastlstm.torch: expected torch 2.8 or later, got {_torch.__version__}")

from fastlstm.in_torch.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastlstm.in_torch.replace import replace, restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "replace", "restore"]
