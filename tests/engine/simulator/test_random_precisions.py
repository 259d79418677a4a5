"""Random small networks with random wishes and corrections: the one graph gives what a second simulator gives."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.quantization.quantized import Quantized
from engine.quantization.table import Table
from engine.quantization.traffic import keeping, traffic
from engine.simulator.lowering import lower
from tests.simulated import checked, wished
from tests.small_networks import Array, built, network, random

CHANNELS = 4
CONSTANTS = {
    **{f"w{i}": random(CHANNELS, CHANNELS, 1, 1, seed=i, spread=0.6) for i in range(3)},
    **{f"b{i}": random(CHANNELS, seed=i, spread=0.5) for i in range(3)},
    "wide": random(CHANNELS, CHANNELS, 3, 3, seed=7, spread=0.3), "deep": random(CHANNELS, 1, 3, 3, seed=8),
    "factor": random(1, CHANNELS, 1, 1, seed=3) + np.float32(2), "offset": random(1, CHANNELS, 1, 1, seed=4),
    "joined": random(1, 2, 6, 6, seed=5), "back": random(CHANNELS, CHANNELS + 2, 1, 1, seed=6, spread=0.4),
}  # fmt: skip
# What a step does with the tensor {x}, and an older tensor {o} of the same shape; {n} makes names of its own.
STEPS = {
    "conv": "{n} = Conv ({x}, w0, b0)",
    "without a bias": "{n} = Conv ({x}, w1)",
    "depthwise": "{n} = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 4> ({x}, deep, b1)",
    "transposed": "{n} = ConvTranspose <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x}, wide, b2)",
    "with relu": "{n}c = Conv ({x}, w2, b2)\n{n} = Relu ({n}c)",
    "residual": "{n}c = Conv ({x}, w1, b1)\n{n} = Add ({n}c, {o})",
    "residual with relu": "{n}c = Conv ({x}, w0, b2)\n{n}a = Add ({o}, {n}c)\n{n} = Relu ({n}a)",
    "swish": "{n}c = Conv ({x}, w2, b0)\n{n}g = Sigmoid ({n}c)\n{n} = Mul ({n}c, {n}g)",
    "hard swish": "{n}c = Conv ({x}, w1, b1)\n{n} = HardSwish ({n}c)",
    "gate": "{n}g = Sigmoid ({x})\n{n} = Mul ({n}g, {o})",
    "tanh": "{n} = Tanh ({x})",
    "times": "{n} = Mul ({x}, factor)",
    "plus": "{n} = Add ({x}, offset)",
    "sum": "{n} = Add ({x}, {o})",
    "pool": "{n} = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x})",
    "join": "{n}j = Concat <axis = 1> ({x}, joined)\n{n} = Conv ({n}j, back)",
    "halves": "{n}l, {n}r = Split <axis = 1, num_outputs = 2> ({x})\n{n} = Concat <axis = 1> ({n}r, {n}l)",
    "turn": "{n} = Transpose <perm = [0, 1, 3, 2]> ({x})",
    "softmax": "{n} = Softmax <axis = 1> ({x})",
}
SHAPE = (1, CHANNELS, 6, 6)
PRECISIONS = ("int8", "int16", "float16")


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Two to six steps, each on the newest tensor, and the outputs: the last tensor and perhaps another one."""
    made = ["x"]
    lines = []
    for index, step in enumerate(draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=6))):
        lines.append(STEPS[step].format(x=made[-1], o=draw(st.sampled_from(made)), n=f"t{index}"))
        made.append(f"t{index}")
    further = draw(st.sampled_from(made[1:]))
    return "\n".join(lines), list(dict.fromkeys([made[-1], further]))


@st.composite
def quantized_models(draw: st.DrawFn) -> Quantized:
    """A built model with wishes for some of its tensors and corrections of some of its convolutions."""
    body, outputs = draw(bodies())
    with tempfile.TemporaryDirectory() as folder:
        samples = [[random(*SHAPE, seed=seed)] for seed in (1, 2)]
        config = {
            "quantized_method": draw(st.sampled_from(["channel", "layer"])),
            "quantized_dtype": draw(st.sampled_from(["asymmetric_quantized-8", "asymmetric_quantized-16"])),
        }
        session = built(Path(folder), network({"x": SHAPE}, body, CONSTANTS, outputs), samples, **config)
    model = session.model
    names = [v.name or "" for v in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]]
    wishable = [name for name in names if name in session.table.rows]
    wishes = draw(st.dictionaries(st.sampled_from(wishable), st.sampled_from(PRECISIONS), max_size=8))
    weights: dict[str, Array] = {}
    biases: dict[str, Array] = {}
    for node in model.graph:
        name = node.outputs[0].name or ""
        if node.op_type in ("Conv", "ConvTranspose"):
            if draw(st.integers(0, 2)) == 0:
                biases[name] = random(CHANNELS, seed=len(biases) + 20)
            if draw(st.integers(0, 2)) == 0:
                weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
                weights[name] = np.clip(weight, -0.5, 0.4)
    return wished(session, wishes, weights=weights, biases=biases)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(quantized=quantized_models(), seed=st.integers(0, 3))
def test_every_tensor_is_that_of_a_second_simulator(quantized: Quantized, seed: int) -> None:
    # Not near, but equal: both round the same float32 sums, which ONNX Runtime takes in the same order.
    checked(quantized, {"x": random(*SHAPE, seed=30 + seed, spread=1.3)})


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(quantized=quantized_models())
def test_what_is_told_of_conversions_is_what_the_graph_holds(quantized: Quantized) -> None:
    told: Counter[tuple[str, str]] = Counter()
    for one in traffic(quantized).values():
        told.update((name, precision) for name, kept in one.writes.items() for precision in kept)
    between = {name for name, _ in told}
    held: Counter[tuple[str, str]] = Counter()
    for node in lower(quantized).graph.node:
        if node.op_type == "QuantizeLinear":
            name, precision, _ = node.input[1].rsplit(".", 2)
        elif node.op_type == "Cast" and node.output[0].endswith(".half"):
            name, precision = node.input[0].split(".")[0], "float16"
        else:
            continue
        if name in between:  # the rest is where a layer is parted
            held[name, precision] += 1
    assert held == told


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(quantized=quantized_models(), choice=st.integers(0, 100), precision=st.sampled_from(PRECISIONS))
def test_the_lines_that_are_said_to_be_missing_keep_a_tensor_as_wished(
    quantized: Quantized, choice: int, precision: str
) -> None:
    names = [name for one in traffic(quantized).values() for name in one.writes]
    tensor = names[choice % len(names)]
    lines = keeping(quantized, tensor, precision)
    wishes = {**quantized.table.wishes, **lines}
    after = quantized.changed(table=Table(quantized.table.rows, wishes))
    kept = next(one.writes[tensor] for one in traffic(after).values() if tensor in one.writes)
    assert kept == (precision,)
    assert keeping(after, tensor, precision) == {}
