"""ONNX Runtime on the CPU; inference only."""

import numpy as np

import fastlstm as fl
from bench.cells import CELLS
from bench.peers.base import Peer
from bench.peers.onnx_model import onnx_inputs, onnx_model
from bench.problem import Problem


class OnnxRuntime(Peer):
    """`InferenceSession.run`: arrays in, new arrays out.

    `session.intra_op.allow_spinning` keeps its default: the pool spins on after a call.
    """

    name = "onnxruntime"
    requires = ("onnxruntime", "onnx")
    cells = tuple(CELLS)

    def __init__(self, problem: Problem, threads: int, head: fl.Linear | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            onnx_model(problem, head), options, providers=["CPUExecutionProvider"]
        )
        self._feed = onnx_inputs(problem)

    def infer(self) -> np.ndarray:
        return self._session.run(None, self._feed)[0]


class BoundOnnxRuntime(OnnxRuntime):
    """The same with its inputs and outputs bound beforehand; a call overwrites the last result."""

    name = "onnxruntime-bound"
    by_default = False

    def __init__(self, problem: Problem, threads: int):
        super().__init__(problem, threads)
        self._binding = self._session.io_binding()
        for name, array in self._feed.items():
            self._binding.bind_input(
                name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )
        self._results = []
        for output in self._session.get_outputs():
            array = np.empty(output.shape, np.float32)
            self._results.append(array)
            self._binding.bind_output(
                output.name, "cpu", 0, np.float32, array.shape, array.ctypes.data
            )

    def infer(self) -> np.ndarray:
        self._session.run_with_iobinding(self._binding)
        return self._results[0]
