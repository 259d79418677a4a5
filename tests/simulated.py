"""Every tensor between layers of a quantized model: as the engine lowers it, and as the second simulator gives it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.graph.layers import layers
from engine.ort import make_session
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import Table
from engine.session import Session
from engine.simulator.lowering import lower
from tests.plain_arithmetic import PlainSimulator
from tests.small_networks import Array


def wished(
    session: Session,
    wishes: Mapping[str, str] | None = None,
    *,
    weights: Mapping[str, Array] | None = None,
    biases: Mapping[str, Array] | None = None,
) -> Quantized:
    """What the session built, with wishes and corrections."""
    model, method = session.model, session.config.quantized_method
    table = Table(session.table.rows, dict(wishes or {}))
    return Quantized(model, layers(model), table, method, Corrections(weights or {}, biases or {}))


def stored_tensors(quantized: Quantized, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor between layers as the one lowered graph stores it.

    On one thread: several may part a sum elsewhere, which now and then is a step of int16 to either side.
    """
    names = [v.name or "" for v in quantized.model.graph.inputs]
    names += [name for layer in quantized.layers for name in layer.outputs]
    outputs = make_session(lower(quantized, further=names), threads=1).run(None, dict(feeds))
    return dict(zip(names, outputs[-len(names) :], strict=True))


def plain_tensors(quantized: Quantized, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The same from the second simulator."""
    plain = PlainSimulator(
        quantized.model,
        quantized.layers,
        quantized.table,
        per_channel=quantized.method == "channel",
        weights=quantized.corrections.weights,
        biases=quantized.corrections.biases,
    )
    return plain.run(feeds)[1]


def checked(quantized: Quantized, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor between layers, after checking that both simulators agree on it to the last bit."""
    found, expected = stored_tensors(quantized, feeds), plain_tensors(quantized, feeds)
    for name, array in found.items():
        assert np.array_equal(array, expected[name], equal_nan=True), name
    return found
