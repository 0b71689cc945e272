"""From a torch model to an ONNX file, with proof and stopwatch."""
