"""The tape that `forward` of a recurrent layer returns for its `backward`."""

from dataclasses import dataclass
from typing import Any

from fastlstm.engine.plan import Call
from fastlstm.kernels.arguments import Kernels
from fastlstm.module import Parameters, Tape


@dataclass(slots=True, eq=False)
class RecurrentTape(Tape):
    parameters: Parameters
    kernels: Kernels
    call: Call
    masks: Any  # the random numbers of the call, in the form of `prepared`
    saved: Any  # the saved arrays, in the form of `prepared`
    learned_state: bool = False  # whether the call began with the learned state
