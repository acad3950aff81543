"""Pooling of steps as a module of torch."""

import torch
from torch import nn


class Pool(nn.Module):
    """`fastlstm.Pool` without lengths: one vector in place of the steps of a sequence.

    Parameters
    ----------
    kind : "last", "mean" or "max"
    batch_first : bool
        Whether x is (B, T, F) instead of (T, B, F); one sequence is (T, F).
    reverse : tuple of bool
        For each direction of the features, whether it ends at the first step.
    """

    def __init__(self, kind: str, batch_first: bool, reverse: tuple[bool, ...]):
        super().__init__()
        self.kind, self.batch_first, self.reverse = kind, batch_first, reverse

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool the steps of each row; the vector of a row without steps is zero."""
        axis = int(self.batch_first and x.dim() == 3)
        if x.shape[axis] == 0:
            return x.sum(axis)
        if self.kind == "mean":
            return x.mean(axis)
        if self.kind == "max":
            return x.max(axis).values
        parts = x.chunk(len(self.reverse), -1)
        ends = [
            part.select(axis, 0 if is_reverse else -1)
            for part, is_reverse in zip(parts, self.reverse, strict=True)
        ]
        return torch.cat(ends, -1)

    def extra_repr(self) -> str:
        return f"{self.kind!r}, batch_first={self.batch_first}"
