"""Readers of model files: file in, graph out, one module a framework."""
