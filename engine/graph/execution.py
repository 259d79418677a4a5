"""Runs a float graph as it is, on given or random inputs: for checks that a rewrite changed nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.query import static_shape
from engine.ort import make_session, run, serialize

Array = np.ndarray[Any, Any]


def random_feeds(model: ir.Model, seed: int = 0) -> dict[str, Array]:
    """Inputs by name: floats uniform in -1..1, integers and booleans 0 or 1 (valid as indices of most tables)."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        shape = static_shape(value)
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        if np.issubdtype(dtype, np.floating):
            feeds[value.name or ""] = generator.uniform(-1, 1, shape).astype(dtype)
        else:
            feeds[value.name or ""] = generator.integers(0, 2, shape).astype(dtype)
    return feeds


def run_float(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of the float graph, computed as written. Raises ModelError."""
    return run(make_session(serialize(model), optimization="none"), None, dict(feeds))


def distance(before: list[Array], after: list[Array]) -> tuple[float, float]:
    """Cosine and euclidean distance of two runs' outputs, all outputs taken as one vector."""
    first = np.concatenate([a.astype(np.float64).reshape(-1) for a in before])
    second = np.concatenate([a.astype(np.float64).reshape(-1) for a in after])
    norm = math.sqrt(float(first @ first) * float(second @ second))
    euclidean = float(np.linalg.norm(first - second))
    return (float(first @ second) / norm if norm else float(euclidean == 0.0)), euclidean
