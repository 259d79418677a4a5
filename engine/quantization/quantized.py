"""The quantized model as a value: a float graph, the table beside it, and what was corrected in its constants."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.layers import FLOATS, Layer
from engine.graph.query import constant, tensors
from engine.quantization.table import Table
from engine.quantization.weights import QuantizedWeight, quantize_weight

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Corrections:
    """Weights and biases that the quantized model has in place of the float graph's.

    Keys are names of the first output of the node that reads them, values float32. A weight has the shape of the
    node's and holds in integer layers; a bias has one value an output channel and holds in every precision, also where
    the node of the float graph has none.
    """

    weights: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    biases: Mapping[str, Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Quantized:
    """What the NPU would be given. `model` is the float graph that it is judged by, with `layers` seen in it.

    method: 'channel' or 'layer', for weights.
    """

    model: ir.Model
    layers: tuple[Layer, ...]
    table: Table
    method: str = "channel"
    corrections: Corrections = Corrections()

    @functools.cached_property
    def constants(self) -> Constants:
        """The constants on their grids."""
        return Constants(self.method, self.corrections)

    @functools.cached_property
    def integers(self) -> frozenset[str]:
        """The graph's tensors that are not of floats, and so never quantized."""
        return frozenset(v.name or "" for v in tensors(self.model.graph) if v.dtype not in FLOATS)

    @functools.cached_property
    def makers(self) -> dict[str, Layer]:
        """The layer that makes each tensor, inner ones too; model inputs have none."""
        return {name: layer for layer in self.layers for name in (*layer.inner, *layer.outputs)}

    def changed(self, *, table: Table | None = None, biases: Mapping[str, Array] | None = None) -> Quantized:
        """A copy with another table or other corrected biases, which shares the weights that were quantized already."""
        corrections = self.corrections
        if biases is not None:
            corrections = dataclasses.replace(corrections, biases=biases)
        copy = dataclasses.replace(self, table=table or self.table, corrections=corrections)
        copy.__dict__["constants"] = self.constants.with_biases(corrections.biases)
        copy.__dict__["integers"] = self.integers
        copy.__dict__["makers"] = self.makers
        return copy


class Constants:
    """Weights and biases as layers hold them; a weight is put on its grid once."""

    def __init__(self, method: str, corrections: Corrections = Corrections()) -> None:
        self._method = method
        self._corrections = corrections
        self._weights: dict[tuple[str, str], QuantizedWeight] = {}

    def with_biases(self, biases: Mapping[str, Array]) -> Constants:
        """The same with other corrected biases."""
        copy = Constants(self._method, dataclasses.replace(self._corrections, biases=biases))
        copy._weights = self._weights
        return copy

    def weight(self, node: ir.Node, precision: str) -> QuantizedWeight:
        """The weight (input 1) of a convolution or product on the grid of `precision`, 'int8' or 'int16'."""
        key = (node.outputs[0].name or "", precision)
        if key not in self._weights:
            replacement = self._corrections.weights.get(key[0])
            self._weights[key] = quantize_weight(node, self._method, precision, replacement)
        return self._weights[key]

    def is_replaced(self, node: ir.Node) -> bool:
        """Whether the weight of a convolution or product is another than the model's."""
        return (node.outputs[0].name or "") in self._corrections.weights

    def bias(self, node: ir.Node) -> Array | None:
        """The bias of a convolution in float32, corrected if it was; None where it has none, or computes it."""
        corrected = self._corrections.biases.get(node.outputs[0].name or "")
        if corrected is not None:
            return corrected
        return constant(node.inputs[2]) if len(node.inputs) > 2 else None

    def corrected_bias(self, node: ir.Node) -> Array | None:
        """The bias of a convolution where it was corrected, else None."""
        return self._corrections.biases.get(node.outputs[0].name or "")
