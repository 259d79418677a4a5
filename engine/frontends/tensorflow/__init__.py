"""The TensorFlow front end: a frozen GraphDef in, a graph with static shapes in float32 out."""

from engine.frontends.tensorflow.loading import load, operators

__all__ = ["load", "operators"]
