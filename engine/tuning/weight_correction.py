"""Sequential weight correction: weights make up for the noise of what they read, and their rounding errors cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.layers import Layer
from engine.graph.query import attribute, constant, static_shape
from engine.progress import Progress
from engine.quantization.parameters import LIMITS
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.samples import Sample
from engine.quantization.table import GRIDS
from engine.quantization.traffic import computed_in
from engine.quantization.weights import quantize_weight
from engine.simulator.stepwise import Stepwise
from engine.tuning.bias_correction import correctable
from engine.tuning.products import Products, positions

Array = np.ndarray[Any, Any]

# Output positions of each sample that a layer learns from. Half as many cost a quarter of a decibel.
_POSITIONS = 512
# Weights of an output channel beyond which a layer stays: time grows with the cube, memory with the square.
_MOST_WEIGHTS = 1152
# How strongly weights may be held where they were, in parts of the mean power of the values that they read.
_TIES = (0.1, 1.0, 10.0)
# The same for rounding: without it, small errors would be made up for by large changes elsewhere.
_DAMPING = 0.1
# Weights that are rounded before what follows from them reaches those behind.
_BLOCK = 64


def correct_weights(quantized: Quantized, samples: Sequence[Sample], progress: Progress | None = None) -> Quantized:
    """`quantized` with weights that leave less noise in its outputs, and biases that go with them.

    `samples` are normalized inputs by name; eight do, one alone changes nothing. Every Conv and Gemm with constant
    weights is looked at in execution order, with what the corrected layers before it make of the samples. The weights
    change by what brings its outputs nearest to the float model's, in least squares with a ridge. Each half of the
    samples judges what was learned from the other: it says how strong the ridge has to be, and whether the weights
    change at all. They are then put on the grid that they had one by one, and those not yet rounded make up for the
    error (Frantar et al. 2022, https://arxiv.org/abs/2210.17323, equations 2 and 3; first come those that read the
    largest values).

    What does not compute on a grid stays, as do weights whose grid came with the source model, and layers for whose
    weights there are too few values to learn from. Weights at the ends of a grid stay, so that quantizing the result
    finds the same grid. Changes of weights leave the means of the outputs alone: those are the biases' affair, to which
    `BiasCorrector` does better justice afterwards. In memory are the tensors that layers ahead read, and 512 outputs a
    channel and sample of each layer. Raises Cancelled.
    """
    if len(samples) < 2:
        return quantized
    progress = progress or Progress()
    place = {layer.name: index for index, layer in enumerate(quantized.layers)}
    steps = 2 * len(place)
    products = {
        node: Products(node, _POSITIONS)
        for layer in quantized.layers
        for node, precision in zip(layer.nodes, computed_in(layer, quantized.table), strict=True)
        if precision in GRIDS and _learnable(node, len(samples))
    }
    wanted: dict[ir.Node, list[Array]] = {}

    def listen(layer: Layer, now: Quantized) -> Quantized:
        progress.step("correct", place[layer.name], steps)
        for node in filter(products.__contains__, layer.nodes):
            wanted[node] = [products[node].rows @ x for x in _columns(golden, products[node])]
        return now

    golden = Stepwise(quantized, samples, only=frozenset(), run=False, keep=False)
    golden.advance(quantized, listen)

    def correct(layer: Layer, now: Quantized) -> Quantized:
        progress.step("correct", len(place) + place[layer.name], steps)
        for node, precision in zip(layer.nodes, computed_in(layer, now.table), strict=True):
            if node in products:
                now = _corrected(now, products[node], precision, _columns(stepwise, products[node]), wanted.pop(node))
        return now

    stepwise = Stepwise(quantized, samples, run=False, keep=False)
    stepwise.advance(quantized, correct)
    progress.step("correct", steps, steps)
    return stepwise.quantized


def _learnable(node: ir.Node, samples: int) -> bool:
    """Whether the node's weight can be corrected, and has no more values to an output than it is learned from."""
    if node.op_type not in ("Conv", "Gemm") or not correctable(node):
        return False
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0:
        return False
    weight = constant(node.inputs[1])
    channels = static_shape(node.outputs[0])[1]
    most = min(_MOST_WEIGHTS, samples * min(_POSITIONS, positions(node)))
    return weight is not None and 0 < weight.size <= most * channels


def _columns(stepwise: Stepwise, product: Products) -> list[Array]:
    """What the weights read, for each sample."""
    source = product.node.inputs[0]
    assert source is not None
    return [product.columns(stepwise.value(sample, source.name or "")) for sample in range(stepwise.samples)]


def _corrected(
    now: Quantized, product: Products, precision: str, columns: Sequence[Array], wanted: Sequence[Array]
) -> Quantized:
    """`now` with another weight and bias of one node, of which `columns` should make `wanted`, bias apart."""
    name = product.node.outputs[0].name or ""
    weights, biases = dict(now.corrections.weights), dict(now.corrections.biases)
    grid = _Grid.of(product, weights.get(name, product.weight), now.method, precision)
    rows = grid.rounded
    missing = [y - product.rows @ x for x, y in zip(columns, wanted, strict=True)]
    change, gram = _change([_Moments.of(columns[half::2], missing[half::2]) for half in (0, 1)])
    if change is not None:
        rows = _rounded(product.rows + change, grid, gram)
        weights[name] = product.by_shape(np.where(grid.ends, grid.before, rows).astype(np.float32))
    rows = rows.astype(np.float32)
    means = [(y - rows @ x).mean(axis=2, dtype=np.float64) for x, y in zip(columns, wanted, strict=True)]
    shift = np.mean(means, axis=0).reshape(-1)
    if np.isfinite(shift).all():
        bias = constant(product.node.inputs[2]) if len(product.node.inputs) > 2 else None
        before = 0.0 if bias is None else bias.reshape(-1).astype(np.float64)
        biases[name] = (before + shift).astype(np.float32)
    return dataclasses.replace(now, corrections=Corrections(weights, biases))


@dataclasses.dataclass(frozen=True, eq=False)
class _Moments:
    """Mean products of the values that weights read, over samples and positions.

    gram: with one another, [groups, weights, weights]. cross: with what outputs miss, [groups, outputs, weights]. Both
    float64.
    """

    gram: Array
    cross: Array

    @classmethod
    def of(cls, columns: Sequence[Array], missing: Sequence[Array]) -> _Moments:
        """Of the columns and what outputs miss, less its mean, which a bias makes up for.

        What is read keeps its mean, so that changes of weights that would move the output's mean cost most.
        """
        read, miss = np.concatenate(columns, axis=2), np.concatenate(missing, axis=2)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at what is not finite
            miss = miss - miss.mean(axis=2, keepdims=True)
            gram, cross = (each @ read.swapaxes(1, 2) for each in (read, miss))
        return cls(gram.astype(np.float64) / read.shape[2], cross.astype(np.float64) / read.shape[2])

    def solved(self, tie: float) -> Array:
        """The change of the weights [groups, outputs, weights] that makes most of what is missing, tied to 0."""
        found: Array = np.linalg.solve(_damped(self.gram, tie), self.cross.swapaxes(1, 2)).swapaxes(1, 2)
        return found

    def gain(self, change: Array) -> float:
        """By how much the mean squared error falls, summed over the outputs, with `change` added to the weights."""
        return float(np.sum(change * (2.0 * self.cross - change @ self.gram)))


def _change(halves: Sequence[_Moments]) -> tuple[Array | None, Array]:
    """What to add to the weights, None where that says nothing about other samples; and the Gram matrix of them all."""
    whole = _Moments((halves[0].gram + halves[1].gram) / 2.0, (halves[0].cross + halves[1].cross) / 2.0)
    if not (np.isfinite(whole.gram).all() and np.isfinite(whole.cross).all()):
        return None, whole.gram
    gains = {tie: halves[0].gain(halves[1].solved(tie)) + halves[1].gain(halves[0].solved(tie)) for tie in _TIES}
    best = max(gains, key=gains.__getitem__)
    return whole.solved(best) if gains[best] > 0.0 else None, whole.gram


def _damped(gram: Array, share: float) -> Array:
    """`gram` with `share` of the mean of its diagonal added to the diagonal."""
    power = np.trace(gram, axis1=1, axis2=2) / gram.shape[1]
    damped: Array = gram + np.eye(gram.shape[1]) * (share * np.where(power > 0.0, power, 1.0))[:, None, None]
    return damped


@dataclasses.dataclass(frozen=True, eq=False)
class _Grid:
    """A weight and its grid, as rows [groups, outputs, weights]; `scale`, `low` and `high` have one weight a row.

    low, high: the smallest and largest integer, less the zero point. before: the weight as it was; rounded: on the
    grid; ends: where it is at an end of that.
    """

    scale: Array
    low: Array
    high: Array
    before: Array
    rounded: Array
    ends: Array

    @classmethod
    def of(cls, product: Products, weight: Array, method: str, precision: str) -> _Grid:
        found = quantize_weight(product.node, method, precision, weight)
        scale = product.by_rows(found.scale)[..., :1]
        low, high = (limit - product.by_rows(found.zero_point)[..., :1] for limit in LIMITS[precision])
        integers = np.rint(product.by_rows(found.real) / scale)
        ends = (integers <= low) | (integers >= high)
        return cls(scale, low, high, product.by_rows(weight), integers * scale, ends)


def _rounded(rows: Array, grid: _Grid, gram: Array) -> Array:
    """`rows` [groups, outputs, weights] on `grid`, each rounded with what makes up for those rounded before it."""
    order = np.argsort(-np.diagonal(gram, axis1=1, axis2=2), axis=1, kind="stable")
    sorted_gram = np.take_along_axis(np.take_along_axis(gram, order[:, :, None], 1), order[:, None, :], 2)
    inverse = np.linalg.inv(_damped(sorted_gram, _DAMPING))
    # By rows: how the weights behind one have to change for its error.
    upper = np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2.0).swapaxes(1, 2)
    places = np.broadcast_to(order[:, None, :], rows.shape)
    left, before, ends = (np.take_along_axis(array, places, 2) for array in (rows, grid.rounded, grid.ends))
    scale, low, high = grid.scale[..., 0], grid.low[..., 0], grid.high[..., 0]
    made = np.empty_like(left)
    for start in range(0, rows.shape[2], _BLOCK):
        stop = min(start + _BLOCK, rows.shape[2])
        errors = np.empty((*rows.shape[:2], stop - start))
        for i in range(start, stop):
            value = np.clip(np.rint(left[..., i] / scale), low, high) * scale
            made[..., i] = np.where(ends[..., i], before[..., i], value)
            errors[..., i - start] = error = (left[..., i] - made[..., i]) / upper[:, i, i, None]
            left[..., i + 1 : stop] -= error[..., None] * upper[:, i, None, i + 1 : stop]
        left[..., stop:] -= errors @ upper[:, start:stop, stop:]
    found = np.empty_like(rows)
    np.put_along_axis(found, places, made, 2)
    return found
