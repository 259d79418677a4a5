"""The model as a valid ONNX graph with static shapes: the layer view and the rewrite passes."""
