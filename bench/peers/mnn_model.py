"""MNN on the CPU; inference only.

Its converter is called through `_tools`, the extension behind `MNN.tools.mnnconvert`: importing
`MNN.tools` itself runs `pip install` for a package that reports every conversion to its makers.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.peers.base import CannotDoError, Peer, refuse
from bench.peers.onnx_model import onnx_inputs, onnx_model
from bench.problem import Problem

CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
OPTIONS = ("--bizCode", "fastlstm", "--useOriginRNNImpl")  # else it unrolls the steps


class Mnn(Peer):
    """A session of the ONNX model, converted: arrays in, copied, and a new array out."""

    name = "mnn"
    requires = ("MNN", "onnx")

    def __init__(self, problem: Problem, threads: int):
        import MNN

        refuse(problem, "lengths")
        with tempfile.TemporaryDirectory() as folder:
            self._interpreter = MNN.Interpreter(str(_convert(onnx_model(problem), Path(folder))))
        self._session = self._interpreter.createSession({"backend": "CPU", "numThread": threads})
        self._copies = []
        for name, array in onnx_inputs(problem).items():
            order = MNN.Tensor_DimensionType_Caffe  # C order
            source = MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, order)
            target = self._interpreter.getSessionInput(self._session, name)
            self._copies.append((target.copyFrom, source))
        self._y = self._interpreter.getSessionOutput(self._session, "y")

    def infer(self) -> np.ndarray:
        for copy, source in self._copies:
            copy(source)
        self._interpreter.runSession(self._session)
        return np.array(self._y.getNumpyData())


def _convert(model: bytes, folder: Path) -> Path:
    """The file of the converted model."""
    source, result = folder / "model.onnx", folder / "model.mnn"
    source.write_bytes(model)
    files = "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(result)
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *files, *OPTIONS], capture_output=True, text=True
    )
    if done.returncode or not result.exists():
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"status {done.returncode}"]
        raise CannotDoError(f"not converted: {lines[-1]}")
    return result
