"""The tape that `forward` of a recurrent layer returns for its `backward`."""

from dataclasses import dataclass
from typing import Any

from fastlstm.engine.mask import Given
from fastlstm.engine.plan import Call
from fastlstm.kernels.arguments import Kernels
from fastlstm.module import Parameters, Tape


@dataclass(slots=True, eq=False)
class RecurrentTape(Tape):
    parameters: Parameters
    kernels: Kernels
    arguments: tuple[Any, Any, Any, Any]  # x, state, lengths, resets, from the kernels' `forward`
    masks: Any  # the random numbers of the call, in the form for the prepared call
    saved: Any
    given: Given | None = None  # the form in which x came, if it was a list or had a mask
    learned_state: bool = False  # True: the call began with the learned state

    @property
    def call(self) -> Call:
        return Call(*self.arguments, self.given)
