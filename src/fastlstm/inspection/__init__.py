"""What a model does inside: gates, states and gradients over time, and what its output depends on.

Everything is computed by the kernels of inference and training, with one set of parameters
throughout, and without random numbers.
"""

from fastlstm.inspection.attribution import (
    EffectiveMemory,
    effective_memory,
    integrated_gradients,
    saliency,
)
from fastlstm.inspection.flow import (
    FlowComparison,
    GradientFlow,
    LayerFlow,
    compare_flow,
    gradient_flow,
)
from fastlstm.inspection.health import Diagnosis, Finding, diagnose
from fastlstm.inspection.measures import LayerHealth
from fastlstm.inspection.summary import Summary, SummaryRow, summary
from fastlstm.inspection.text import TextTrace, text_trace
from fastlstm.inspection.trace import LayerTrace, Trace, trace

__all__ = [
    "Diagnosis",
    "EffectiveMemory",
    "Finding",
    "FlowComparison",
    "GradientFlow",
    "LayerFlow",
    "LayerHealth",
    "LayerTrace",
    "Summary",
    "SummaryRow",
    "TextTrace",
    "Trace",
    "compare_flow",
    "diagnose",
    "effective_memory",
    "gradient_flow",
    "integrated_gradients",
    "saliency",
    "summary",
    "text_trace",
    "trace",
]
