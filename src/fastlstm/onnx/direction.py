"""One direction of an operator: a layer that reads either way."""

from collections.abc import Callable
from typing import Any

from fastlstm.layers.gru import GRU
from fastlstm.layers.lstm import LSTM
from fastlstm.layers.module import Parameters
from fastlstm.layers.recurrent import Recurrent
from fastlstm.layers.rnn import RNN
from fastlstm.layers.shares import Sharing


class Direction(Recurrent):
    """What a layer of one direction has that an operator needs, to stand before a kind of layer."""

    _reads_backwards = False

    def _begin(self, *_: Any) -> None:
        """Nothing is drawn: parameters come from `begin_with`."""

    def begin_with(self, parameters: dict[str, Any], reverse: bool) -> None:
        self._reads_backwards = reverse
        self._replace_parameters(parameters)

    def _is_reverse(self, direction: int) -> bool:
        return self._reads_backwards

    def _call_kernel(
        self, k: Any, parameters: Parameters, axes: tuple[int, int], sharing: Sharing
    ) -> Callable[..., Any] | None:
        return None if self._reads_backwards else super()._call_kernel(k, parameters, axes, sharing)


class LSTMDirection(Direction, LSTM):
    pass


class GRUDirection(Direction, GRU):
    pass


class RNNDirection(Direction, RNN):
    pass
