"""Runs a graph as the NPU would: lowering to one ONNX Runtime session, and the runner."""
