"""From a graph and a dataset to the table of quantization parameters."""
