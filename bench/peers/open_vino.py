"""OpenVINO on the CPU; inference only."""

import numpy as np

from bench.cells import CELLS
from bench.peers.base import Peer
from bench.peers.onnx_model import onnx_inputs, onnx_model
from bench.problem import Problem


class OpenVino(Peer):
    """`InferRequest.infer`: arrays in, which it need not copy, and new arrays out."""

    name = "openvino"
    requires = ("openvino", "onnx")
    cells = tuple(CELLS)

    def __init__(self, problem: Problem, threads: int):
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
        }
        compiled = core.compile_model(core.read_model(onnx_model(problem)), "CPU", settings)
        self._request = compiled.create_infer_request()
        self._feed = onnx_inputs(problem)

    def infer(self) -> np.ndarray:
        return self._request.infer(self._feed, share_inputs=True)[0]


class BoundOpenVino(OpenVino):
    """The same with its inputs bound beforehand; a call overwrites the last result."""

    name = "openvino-bound"
    by_default = False

    def __init__(self, problem: Problem, threads: int):
        import openvino

        super().__init__(problem, threads)
        for name, array in self._feed.items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def infer(self) -> np.ndarray:
        self._request.infer(share_outputs=True)
        return self._request.get_output_tensor(0).data
