"""Measures a quantized model to make it better: corrections, recipes, error sources, search, lint, live edits."""
