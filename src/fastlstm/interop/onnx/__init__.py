"""ONNX in and out: recurrent layers of a file, whole models, and a backend. Needs the extra `onnx`.

- `layers(path)` gives the layer of every LSTM, GRU and RNN node, wherever it stands in the file.
- `read`, which `fastlstm.load` calls, gives a model that is a chain of layers as one Module.
- `Backend` is ONNX's own interface: it runs models of recurrent nodes and of others around them.
- `export(model, path)` writes a model for ONNX Runtime and others.
"""

try:
    import onnx as _  # noqa: F401
except ImportError as error:
    from fastlstm.checks import missing

    raise missing("fastlstm.interop.onnx", "onnx", "onnx") from error

from fastlstm.interop.onnx.backend import Backend as Backend
from fastlstm.interop.onnx.backend import Model as Model
from fastlstm.interop.onnx.nodes import Layers as Layers
from fastlstm.interop.onnx.nodes import layers as layers
from fastlstm.interop.onnx.out.exporting import export as export
from fastlstm.interop.onnx.whole import read as read
