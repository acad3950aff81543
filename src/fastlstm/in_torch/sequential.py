"""A torch model of several modules, of which some carry a state."""

from typing import Any

from torch import nn


class Sequential(nn.Sequential):
    """`torch.nn.Sequential` with recurrent layers: ``y, state = model(x, state)``.

    The state is a tuple with one entry for every recurrent layer, as in `fastlstm.Sequential`; None
    stands for zeros.
    """

    def forward(self, x: Any, state: Any = None) -> tuple[Any, tuple[Any, ...]]:
        """Apply every module."""
        count = sum(_is_recurrent(module) for module in self)
        given = (None,) * count if state is None else tuple(state)
        if len(given) != count:
            raise ValueError(f"state: expected {count} entries, got {len(given)}")
        finals: list[Any] = []
        for module in self:
            if _is_recurrent(module):
                x, final = module(x, given[len(finals)])
                finals.append(final)
            else:
                x = module(x)
        return x, tuple(finals)


def _is_recurrent(module: nn.Module) -> bool:
    return isinstance(module, (nn.RNNBase, Sequential))
