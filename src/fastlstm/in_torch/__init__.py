"""The layers of `fastlstm.torch`."""
