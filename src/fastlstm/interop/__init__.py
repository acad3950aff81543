"""Interfaces to other packages. Each is imported at its first use."""

import importlib
from types import ModuleType

MODULES = (
    "arrays",
    "audio",
    "keras",
    "numpy",
    "onnx",
    "rnnoise",
    "safetensors",
    "tensorflow",
    "tflite",
    "torch",
)


def __getattr__(name: str) -> ModuleType:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
