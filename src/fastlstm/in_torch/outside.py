"""Calls outside of a compiled graph. The import of this module loads torch's compiler."""

from typing import Any

import torch


@torch.compiler.disable(reason="fastlstm.torch computes this call outside of the graph")
def forward(layer: Any, input: Any, hx: Any) -> Any:
    """Compute as without `torch.compile`."""
    return type(layer).forward(layer, input, hx)
