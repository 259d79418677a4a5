"""Measures a quantized model in order to make it better: corrections, recipes, error sources, search, lint, live edits."""
