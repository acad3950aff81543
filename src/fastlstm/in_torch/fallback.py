"""Which calls these kernels compute, and which torch's own layers do."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from fastlstm.checks import warn_user
from fastlstm.in_torch.packed import DTYPES

PLAIN = (torch.Tensor, torch.nn.Parameter)  # no subclasses, which give operators another meaning
_warned: set[str] = set()
is_exporting = torch.compiler.is_exporting


def takes_over() -> bool:
    """Whether these kernels compute in the present context.

    What is exported or scripted has torch's own operators, so that it runs without this library.
    """
    if torch.compiler.is_compiling():
        return not (is_exporting() or torch.is_autocast_enabled("cpu"))
    if (
        torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
    ):
        return False
    if torch.is_autocast_enabled("cpu"):
        warn_once("autocast is on")
        return False
    return True


def can_compute(x: Any, state: Sequence[Any], weights: Sequence[Any]) -> bool:
    """Whether the kernels take these tensors; shapes apart."""
    first = weights[0]
    dtype = first.dtype
    if not first.is_cpu:
        return _leave(f"the weights are on device {first.device}")
    if dtype not in DTYPES:
        return _leave(f"the weights have dtype {dtype}")
    for weight in weights:
        if type(weight) not in PLAIN:
            return _leave(f"a weight is a {type(weight).__name__}")
        if weight.dtype != dtype or not weight.is_cpu:
            return False
    for tensor in (x, *state):
        if not isinstance(tensor, torch.Tensor):
            return False
        if type(tensor) not in PLAIN:
            return _leave(f"an argument is a {type(tensor).__name__}")
        if tensor.is_nested or tensor.layout != torch.strided:
            return _leave("an argument is nested or sparse")
        if tensor.dtype != dtype or not tensor.is_cpu:
            return False
        if not torch.compiler.is_compiling() and tensor.is_neg():  # a lazy minus that NumPy lacks
            return False
    return True


def warn_once(reason: str) -> None:
    """Say, once in a process, why torch's own layers compute."""
    if torch.compiler.is_compiling() or reason in _warned:
        return
    _warned.add(reason)
    torch_folder = os.path.dirname(torch.__file__)
    warn_user(f"fastlstm.torch: torch's own layers compute, as {reason}", torch_folder)


def _leave(reason: str) -> bool:
    warn_once(reason)
    return False
