"""Models as ONNX files: `export`."""
