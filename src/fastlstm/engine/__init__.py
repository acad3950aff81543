"""The engine that runs cells over sequences, and the interface of new cells.

A `Cell` describes one direction of one layer: its sizes, its parameters, and how they are packed.
`Stack` runs cells over sequences, in layers and directions, forward and backward; `OneStep` runs a
cell for one step. A cell that is written in Python alone packs its parameters into a `PythonCell`,
which computes a step and its gradients. `Masks` has the random numbers of a cell in training.
"""

from typing import TYPE_CHECKING, Any

from fastlstm.engine.cell import Cell
from fastlstm.engine.one_step import OneStep
from fastlstm.engine.stack import Stack
from fastlstm.kernels.arguments import Masks

if TYPE_CHECKING:
    from fastlstm.kernels.reference.core.cell import PythonCell

__all__ = ["Cell", "Masks", "OneStep", "PythonCell", "Stack"]


def __getattr__(name: str) -> Any:
    if name != "PythonCell":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The import of the reference takes a fifth of that of fastlstm, and compiled kernels need none.
    from fastlstm.kernels.reference.core import cell

    return cell.PythonCell
