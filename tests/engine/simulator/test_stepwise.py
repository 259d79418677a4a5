"""Layer by layer, a quantized model computes what it computes in one session, on any graph that can be built."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.config import Config
from engine.graph.layers import layers
from engine.ort import make_simulation
from engine.quantization.quantized import Quantized
from engine.quantization.table import Table
from engine.session import Session
from engine.simulator import buffers
from engine.simulator.buffers import Buffers
from engine.simulator.lowering import Source
from engine.simulator.runner import Simulator
from engine.simulator.stepwise import Stepwise
from tests.engine.tuning.changing_networks import between, branches, quantized_of, rebuilt
from tests.small_networks import Array, built, integers, network, random, typed

Samples = Sequence[dict[str, Array]]


def check_equals_whole(quantized: Quantized, samples: Samples) -> None:
    for only in (None, frozenset[Source]()):
        stepwise = Stepwise(quantized, samples, only=only)
        for index, sample in enumerate(samples):
            for name, expected in rebuilt(quantized, sample, only).items():
                assert np.array_equal(stepwise.value(index, name), expected, equal_nan=expected.dtype.kind == "f"), name


def wishing(quantized: Quantized, precision: str) -> Quantized:
    """Every other layer in another precision."""
    chosen = [name for layer in quantized.layers[::2] for name in (*layer.inner, *layer.outputs)]
    wishes = {name: precision for name in chosen if name in quantized.table.rows}
    return quantized.changed(table=Table(quantized.table.rows, wishes))


def test_kernels_that_part_their_sums_by_threads_give_the_same_alone(tmp_path: Path) -> None:
    # Products with more channels than pixels, exponentials in vectors, reductions over turned tensors.
    body = """
    a = Conv <kernel_shape = [1, 1]> (x, w1)
    b = Elu (a)
    c = Softplus (wide)
    d = Conv <kernel_shape = [1, 1]> (one, w2)
    e = Mish (wide)
    f = Tanh (wide)
    g = LeakyRelu (f)
    h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 7> (c, w3)
    i = Sigmoid (h)
    j = Transpose <perm = [0, 2, 3, 1]> (i)
    k = Transpose <perm = [0, 3, 1, 2]> (j)
    l = ReduceMean (j, axes)
    m = Softmax <axis = 1> (j)
    n = ReduceSum (m, axes)
    o = InstanceNormalization (k, s, s)
    p = ConvTranspose <kernel_shape = [4, 4], strides = [2, 2]> (o, w4)
    """
    constants = {
        "w1": random(16, 2048, 1, 1), "w2": random(512, 512, 1, 1), "w3": random(7, 1, 3, 3), "axes": integers(1, 2),
        "s": random(7), "w4": random(7, 9, 4, 4),
    }  # fmt: skip
    shapes = {"x": (1, 2048, 5, 5), "wide": (1, 7, 101, 103), "one": (1, 512, 1, 1)}
    inputs = [[random(*shape, seed=seed) for shape in shapes.values()] for seed in (1, 2, 3)]
    proto = network(shapes, body, constants, ["b", "d", "e", "g", "l", "n", "p"])
    quantized = quantized_of(built(tmp_path, proto, inputs))
    samples = [dict(zip(shapes, sample, strict=True)) for sample in inputs]
    check_equals_whole(quantized, samples)
    check_equals_whole(quantized, samples[:1])
    check_equals_whole(wishing(quantized, "float16"), samples[:1])
    check_equals_whole(wishing(quantized, "int16"), samples[:1])


def test_numbers_that_are_not_finite_pass_through_alike(tmp_path: Path) -> None:
    proto = network({"x": (1, 4)}, "r = Relu (x)\nl = Log (r)\ne = Exp (x)\ny = Add (l, e)", {}, ["y", "r"])
    quantized = quantized_of(built(tmp_path, proto, [(np.abs(random(1, 4, seed=s)) + np.float32(1),) for s in (1, 2)]))
    samples = [{"x": np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)}, {"x": random(1, 4)}]
    check_equals_whole(quantized, samples)
    check_equals_whole(wishing(quantized, "float16"), samples)


def build(folder: Path, proto: onnx.ModelProto, samples: Samples, **settings: object) -> Quantized:
    """The model quantized, for inputs of any type and number of dimensions but four."""
    (folder / "model.onnx").write_bytes(typed(proto).SerializeToString())
    lines = []
    for index, sample in enumerate(samples):
        names = [f"{index}-{place}.npy" for place in range(len(sample))]
        for name, array in zip(names, sample.values(), strict=True):
            np.save(folder / name, array)
        lines.append(" ".join(names))
    (folder / "dataset.txt").write_text("\n".join(lines) + "\n")
    session = Session(Config.from_mapping(settings))
    session.load_onnx(folder / "model.onnx")
    session.build(dataset=folder / "dataset.txt")
    return quantized_of(session)


def test_inputs_and_outputs_of_integers(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "ids"], ["embedded"]),
            helper.make_node("Add", ["embedded", "x"], ["sum"]),
            helper.make_node("ArgMax", ["sum"], ["best"], axis=-1, keepdims=0),
            helper.make_node("Mul", ["best", "two"], ["twice"]),
            helper.make_node("Relu", ["sum"], ["y"]),
        ],
        "integers",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, [3]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 8]),
        ],
        [onnx.ValueInfoProto(name=name) for name in ("y", "twice", "ids", "x")],
        [numpy_helper.from_array(random(20, 8), "words"), numpy_helper.from_array(integers(2), "two")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    samples = [{"ids": integers(1, 7, 19), "x": random(3, 8)}, {"ids": integers(0, 3, 5), "x": random(3, 8, seed=1)}]
    quantized = build(tmp_path, proto, samples)
    check_equals_whole(quantized, samples)
    check_equals_whole(wishing(quantized, "float16"), samples)


def test_outputs_that_are_constants(tmp_path: Path) -> None:
    proto = network({"x": (1, 6)}, "y = Relu (x)", {"c": random(3)}, ["y", "c"])
    quantized = build(tmp_path, proto, [{"x": random(1, 6)}])
    assert np.array_equal(Stepwise(quantized, [{"x": random(1, 6)}]).value(0, "c"), random(3))


def test_several_images_at_a_time(tmp_path: Path) -> None:
    proto = network(
        {"x": (4, 3, 9, 9)}, "a = Conv <kernel_shape = [3, 3]> (x, w)\ny = Relu (a)", {"w": random(5, 3, 3, 3)}
    )
    inputs = [(random(4, 3, 9, 9, seed=seed),) for seed in (1, 2)]
    session = built(tmp_path, proto, inputs)
    quantized = Quantized(session.model, layers(session.model), session.table)
    check_equals_whole(quantized, [{"x": x} for (x,) in inputs])


@pytest.fixture()
def stepwise(tmp_path: Path) -> Stepwise:
    subject = branches(tmp_path)
    return Stepwise(subject.quantized, subject.samples)


def test_a_trial_leaves_what_is_kept_alone(stepwise: Stepwise) -> None:
    before = {name: stepwise.value(0, name).copy() for name in between(stepwise.quantized)}
    trial = stepwise.trial(wishing(stepwise.quantized, "float16"), towards=["scores"])
    assert not np.array_equal(trial.value(0, "scores"), before["scores"])
    assert all(np.array_equal(stepwise.value(0, name), array) for name, array in before.items())


def test_a_trial_gives_what_the_whole_model_would(tmp_path: Path) -> None:
    subject = branches(tmp_path)
    stepwise = Stepwise(subject.quantized, subject.samples)
    changed = wishing(subject.quantized, "int16")
    for _ in range(2):
        trial = stepwise.trial(changed)
        for index, sample in enumerate(subject.samples):
            for name, expected in rebuilt(changed, sample).items():
                assert np.array_equal(trial.value(index, name), expected), name
        stepwise.trial(wishing(subject.quantized, "float16"))


def test_the_model_s_outputs_are_the_simulator_s(tmp_path: Path) -> None:
    subject = branches(tmp_path)
    stepwise = Stepwise(subject.quantized, subject.samples)
    outputs = Simulator(subject.quantized).run(subject.samples[1])
    for value, expected in zip(subject.quantized.model.graph.outputs, outputs, strict=True):
        assert np.array_equal(stepwise.value(1, value.name or ""), expected)


def test_tensors_of_all_samples_and_of_trials_lie_apart(tmp_path: Path) -> None:
    subject = branches(tmp_path)
    stepwise = Stepwise(subject.quantized, [*subject.samples] * 4)
    trial = stepwise.trial(wishing(subject.quantized, "float16"))
    arrays = [
        run.value(index, name) for run in (stepwise, trial) for index in range(8) for name in between(subject.quantized)
    ]
    places = sorted({(array.ctypes.data, array.nbytes) for array in arrays})
    assert len(places) > 8 * len(between(subject.quantized))
    assert all(start + size <= following for (start, size), (following, _) in itertools.pairwise(places))


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_buffers_are_aligned_and_apart(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_BLOCK", 1 << 12)
    memory = Buffers()
    arrays = [memory.empty(shape, dtype) for shape in [(3, 5), (), (0, 4), (7,), (2000, 3), (1,), (500,)]]
    assert [array.shape for array in arrays] == [(3, 5), (), (0, 4), (7,), (2000, 3), (1,), (500,)]
    assert all(array.ctypes.data % 64 == 0 for array in arrays if array.size)
    for number, array in enumerate(arrays):
        array[...] = number % 2
    assert all((array == number % 2).all() for number, array in enumerate(arrays))


def test_sessions_that_share_memory_give_what_others_give(tmp_path: Path) -> None:
    proto = network({"x": (1, 3, 20, 20)}, "y = Conv <kernel_shape = [3, 3]> (x, w)", {"w": random(4, 3, 3, 3)})
    sample = {"x": random(1, 3, 20, 20)}
    sessions = [make_simulation(typed(proto), shared_memory=shared) for shared in (True, True, False)]
    first, second, alone = [session.run(None, sample)[0] for session in sessions]
    assert np.array_equal(first, alone) and np.array_equal(second, alone)
