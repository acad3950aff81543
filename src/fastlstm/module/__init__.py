"""What every layer is: its parameters, calls, gradients and tapes."""

from fastlstm.module.base import Module
from fastlstm.module.tape import Tape, check_tape, describe_backward
from fastlstm.module.values import Gradients, Names, Output, Parameters

__all__ = [
    "Gradients",
    "Module",
    "Names",
    "Output",
    "Parameters",
    "Tape",
    "check_tape",
    "describe_backward",
]
