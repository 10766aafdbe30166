"""The engine of `chorus-model` beside PyTorch and ONNX Runtime: same weights, same threads, one interleaved run."""
