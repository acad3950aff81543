"""ONNX's recurrent operators, LSTM, GRU and RNN, on arrays; the `onnx` package is not needed.

`lstm`, `gru` and `rnn` take the operators' inputs in their order and the attributes as keywords,
and return their outputs. `LSTM`, `GRU` and `RNN` are objects with weights, for several calls and
for training. All inputs and attributes of opsets 7 to 22 are supported, in float32, float64 and
float16 (which is computed in float32).
"""

from fastlstm.onnx.gru import GRU, gru
from fastlstm.onnx.lstm import LSTM, lstm
from fastlstm.onnx.rnn import RNN, rnn

__all__ = ["GRU", "LSTM", "RNN", "gru", "lstm", "rnn"]
