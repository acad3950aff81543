"""What recurrent layers did with a batch: gates, cells and hidden states, and gradients over time.

Everything is computed by the kernels of inference and training, with one set of parameters
throughout, and without random numbers.
"""

from fastlstm.inspection.flow import (
    FlowComparison,
    GradientFlow,
    LayerFlow,
    compare_flow,
    gradient_flow,
)
from fastlstm.inspection.trace import LayerTrace, Trace, trace

__all__ = [
    "FlowComparison",
    "GradientFlow",
    "LayerFlow",
    "LayerTrace",
    "Trace",
    "compare_flow",
    "gradient_flow",
    "trace",
]
