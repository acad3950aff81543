"""Models as torch exports them, on the ONNX backend."""

import io
import warnings

import numpy as np
import pytest

import fastlstm as fl

torch = pytest.importorskip("torch", reason="torch exports the models")
onnx = pytest.importorskip("onnx", reason="the backend needs the onnx package")


class Tagger(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.stack = getattr(torch.nn, kind)(
            5, 7, num_layers=2, bidirectional=True, batch_first=True
        )
        self.head = torch.nn.Linear(14, 3)

    def forward(self, x):
        y, _ = self.stack(x)
        return torch.log_softmax(self.head(torch.relu(y[:, -1])), -1)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_exported_model(kernels, kind):
    torch.manual_seed(5)
    module, file = Tagger(kind).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that it has another exporter
        torch.onnx.export(
            module,
            (torch.randn(3, 6, 5),),
            file,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch", 1: "steps"}},
        )
    prepared = fl.interop.onnx.Backend.prepare(onnx.load_from_string(file.getvalue()))
    for shape in ((3, 6, 5), (4, 9, 5)):
        x = torch.randn(shape)
        expected = module(x).detach().numpy()
        np.testing.assert_allclose(prepared.run([x.numpy()])[0], expected, atol=2e-6)
