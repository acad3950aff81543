"""The least time that a problem's matrix products take on one core, by what the probes found."""

from bench.cells import CELLS
from bench.probes import Probes
from bench.problem import Problem


def least_seconds(problem: Problem, mode: str, probes: Probes) -> float:
    """Every product at the core's peak, or at the speed at which its weights can be read.

    A recurrent product is one small product a step: each step reads all its weights once more, and
    at batch 1 that is what takes the time. The input's product is one large one over all steps.
    Training adds the gradients of the step before, recurrent once more, and of the input and of
    both weights, all large. What is not a product (activations, the cell) counts nothing.

    Parameters
    ----------
    problem : Problem
    mode : "inference" or "training"
    probes : Probes
        Asked here, so that what they find belongs to the moment of the case.
    """
    case = problem.case
    itemsize = problem.x.itemsize
    peak = probes.flops(case.dtype)
    directions = 2 if case.bidirectional else 1
    P = case.proj_size or case.H
    # Coupled gates need one product less: f = 1 - i.
    gates = len(CELLS[case.cell].onnx_gates) - case.variant_options.get("coupled", False)
    speeds: dict[int, float] = {}

    def product(weights: int, passes: int = 1) -> float:
        """Seconds of a product of a matrix of so many weights with all rows of all steps."""
        size = weights * itemsize
        if size not in speeds:
            speeds[size] = probes.reading(size)
        return max(2 * weights * problem.live / peak, passes * size / speeds[size])

    total = 0.0
    for layer in range(case.layers):
        recurrent = [gates * case.H * P] + [P * case.H] * bool(case.proj_size)
        inputs = gates * case.H * (directions * P if layer else case.I)
        total += product(inputs) + sum(product(weights, case.T) for weights in recurrent)
        if mode == "training":
            total += 2 * product(inputs)
            total += sum(product(weights, case.T) + product(weights) for weights in recurrent)
    return directions * total
