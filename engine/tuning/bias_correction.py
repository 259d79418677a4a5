"""Sequential bias correction: biases take up what quantization adds to the mean of each output channel."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from engine.graph.building import GraphBuilder
from engine.graph.given import given
from engine.graph.layers import Layer
from engine.graph.query import attribute, constant, static_shape
from engine.ort import make_simulation, run
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.samples import Sample
from engine.quantization.traffic import computed_in
from engine.simulator.layer_sessions import Unit, key_of
from engine.simulator.lowering import BIASED, Lowering
from engine.simulator.stepwise import Stepwise

Array = np.ndarray[Any, Any]


class BiasCorrector:
    """Corrects the biases of one model, however it is quantized, by the means of its channels over `samples`.

    `samples` are normalized inputs by name; four to eight do. Every Conv, ConvTranspose and Gemm with constant weights
    is corrected, whatever its precision; those whose grids came with the source model are left alone. With `keep`, all
    tensors of all samples stay in memory, and another table costs only what it changes. Not for use by several threads
    at a time. Raises Cancelled.
    """

    def __init__(
        self,
        quantized: Quantized,
        samples: Sequence[Sample],
        progress: Progress | None = None,
        *,
        keep: bool = True,
    ) -> None:
        nodes = [node for layer in quantized.layers for node in layer.nodes if correctable(node)]
        if progress is not None:
            progress.step("correct", 0, len(quantized.layers))
        self._pool = ThreadPoolExecutor(os.cpu_count())
        means = self._measured(_float_meter(quantized.model, nodes), samples) if nodes else []
        self._means = dict(zip(map(_name, nodes), means, strict=True))
        self._stepwise = Stepwise(quantized, samples, run=False, keep=keep)
        self._meters: dict[Hashable, onnxruntime.InferenceSession] = {}

    def corrected(self, quantized: Quantized, progress: Progress | None = None) -> Quantized:
        """`quantized`, the model with any table and weights, with corrected biases in place of those that it has.

        Layers are corrected in execution order, each on what the corrected layers before it make of the samples (Nagel
        et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2, with means that are measured): the bias grows by how
        much larger the float model's mean of the channel is, over samples and positions and before any activation. What
        differs between samples as much as it does on average is noise, and corrected in part only; what is not finite
        is not corrected. Layers that no change since the last call reaches are not run again; the result is the same as
        if they were. Raises Cancelled.
        """
        place = {layer.name: index for index, layer in enumerate(quantized.layers)}

        def correct(layer: Layer, now: Quantized) -> Quantized:
            if progress is not None:
                progress.step("correct", place[layer.name], len(place))
            for node in layer.nodes:
                if _name(node) in self._means:
                    now = self._correct(layer, node, now)
            return now

        known = self._stepwise.quantized.corrections.biases
        self._stepwise.advance(quantized.changed(biases=known), correct)
        if progress is not None:
            progress.step("correct", len(place), len(place))
        return self._stepwise.quantized

    def _correct(self, layer: Layer, node: ir.Node, now: Quantized) -> Quantized:
        """`now` with another bias of `node`, which `layer` runs next."""
        name, source = _name(node), _source(node)
        biases = {key: bias for key, bias in now.corrections.biases.items() if key != name}
        uncorrected = now.changed(biases=biases)
        stepwise = self._stepwise
        feeds = [{source: stepwise.value(sample, source)} for sample in range(stepwise.samples)]
        found = self._measured(self._meter(layer, node, uncorrected), feeds)[0]
        change = _without_noise(self._means[name] - found)
        if not np.isfinite(change).all():
            return uncorrected
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        before = 0.0 if bias is None else bias.reshape(-1).astype(np.float64)
        biases[name] = (before + change).astype(np.float32)
        return now.changed(biases=biases)

    def _meter(self, layer: Layer, node: ir.Node, now: Quantized) -> onnxruntime.InferenceSession:
        """What measures the channels of `node` alone, as `layer` computes it in `now`."""
        source, name = _source(node), _name(node)
        alone = dataclasses.replace(layer, nodes=(node,), inputs=(source,), outputs=(name,), inner=())
        wishes = {**now.table.wishes, name: computed_in(layer, now.table)[layer.nodes.index(node)]}
        now = now.changed(table=dataclasses.replace(now.table, wishes=wishes))
        key = name, key_of(Unit(alone, alone.inputs, alone.outputs), now, None)
        if key not in self._meters:
            builder = self._stepwise.builder(alone)
            made = Lowering(builder, now).layer(alone, lambda tensor: tensor, ".raw")
            _give_means(builder, made[name], node)
            self._meters[key] = _session(builder)
        return self._meters[key]

    def _measured(self, session: onnxruntime.InferenceSession, feeds: Sequence[Sample]) -> list[Array]:
        """For each output of `session` its values [samples, channels], float64."""
        found = list(self._pool.map(lambda feed: run(session, None, dict(feed)), feeds))
        return [np.stack(means).astype(np.float64) for means in zip(*found, strict=True)]


def _without_noise(changes: Array) -> Array:
    """The mean of `changes` [samples, channels], less where the samples do not agree on it.

    It is shrunk by mean² / (mean² + variance of the mean), as a Wiener filter would. Few samples of few positions each
    say little of others': where channels are single values, half of what they ask for may be chance.
    """
    with np.errstate(all="ignore"):  # what is not finite is left to the caller
        mean: Array = changes.mean(axis=0)
        if len(changes) > 1:
            power = np.square(mean)
            total = power + changes.var(axis=0, ddof=1) / len(changes)
            mean = mean * np.divide(power, total, out=np.zeros_like(mean), where=total != 0.0)
    return mean


def correctable(node: ir.Node) -> bool:
    """Whether the node adds a constant bias, or none, to products with constant weights, and no grid was given."""
    if node.op_type not in BIASED or attribute(node, "beta", 1.0) != 1.0:
        return False
    constants = [value for value in node.inputs[1:] if value is not None]
    arrays = [array for value in constants if given(value) is None and (array := constant(value)) is not None]
    # The bias of a Gemm may have another row for each sample.
    biases_fit = all(array.size in (1, static_shape(node.outputs[0])[1]) for array in arrays[1:])
    return len(arrays) == len(constants) and arrays[0].dtype == np.float32 and biases_fit


def _float_meter(model: ir.Model, nodes: Sequence[ir.Node]) -> onnxruntime.InferenceSession:
    """The float model, measured at each of `nodes`."""
    builder = GraphBuilder(model, "means")
    measured = set(nodes)
    for node in model.graph:
        builder.copy_plain(node)
        if node in measured:
            _give_means(builder, _name(node), node)
    return _session(builder)


def _session(builder: GraphBuilder) -> onnxruntime.InferenceSession:
    # Samples run side by side, so that each takes one thread; nor do sums depend on the machine's cores then.
    return make_simulation(builder.build(), threads=1, shared_memory=True)


def _give_means(builder: GraphBuilder, raw: str, node: ir.Node) -> None:
    """Let the graph give out the mean of each channel (axis 1) of `raw`, which `node` makes."""
    others = [axis for axis in range(len(static_shape(node.outputs[0]))) if axis != 1]
    axes = builder.array(f"axes.{len(others)}", np.array(others, np.int64))
    builder.output(builder.node("ReduceMean", [raw, axes], f"{raw}.mean", keepdims=0))


def _name(node: ir.Node) -> str:
    return node.outputs[0].name or ""


def _source(node: ir.Node) -> str:
    """The tensor that a convolution reads."""
    source = node.inputs[0]
    assert source is not None
    return source.name or ""
