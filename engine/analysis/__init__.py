"""Where accuracy is lost: per-layer comparison with the float model, and its files."""
