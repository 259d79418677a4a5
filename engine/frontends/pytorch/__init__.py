"""Reads TorchScript files: `load` makes a graph of one, `operators` tells what is read."""

from engine.frontends.pytorch.loading import load, operators

__all__ = ["load", "operators"]
