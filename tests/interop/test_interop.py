"""Doors to packages that may not be there."""

import subprocess
import sys

import pytest

import fastlstm as fl

WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None  # as if it were not installed
import fastlstm as fl
assert "fastlstm.interop.onnx" not in sys.modules
fl.onnx.rnn([[[1.0]]], [[[1.0]]], [[[1.0]]])
try:
    fl.interop.onnx
except ImportError as error:
    assert str(error) == 'fastlstm.interop.onnx needs onnx: pip install "fastlstm[onnx]"', error
else:
    raise AssertionError
"""


def test_without_the_onnx_package():
    subprocess.run([sys.executable, "-c", WITHOUT_ONNX], check=True)


def test_to_torch_without_torch(monkeypatch):
    fl.interop.torch  # noqa: B018
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'^to_torch needs torch: .*"fastlstm\[torch\]"$'):
        fl.interop.torch.to_torch(fl.LSTM(3, 4))


def test_importing_fastlstm_imports_no_onnx():
    code = "import fastlstm, sys; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_door():
    with pytest.raises(AttributeError, match="caffe"):
        fl.interop.caffe  # noqa: B018
