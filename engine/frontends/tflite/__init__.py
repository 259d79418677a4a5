"""The TFLite front end: a file in, a graph with static shapes in float32 out."""

from engine.frontends.tflite.loading import load, operators

__all__ = ["load", "operators"]
