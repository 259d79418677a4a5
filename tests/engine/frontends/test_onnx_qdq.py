"""Models that arrive with Q/DQ nodes keep their parameters, and simulate as ONNX Runtime runs them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnxruntime import quantization

from engine.config import Config
from engine.errors import ModelError
from engine.frontends.onnx import load
from engine.graph.execution import run_float
from engine.graph.given import GivenParameters, given
from engine.session import Session
from tests.engine.frontends.model_files import IMAGE, Array, assert_loads_as, floats, model, run, save

QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
U8, I8 = quantization.QuantType.QUInt8, quantization.QuantType.QInt8

NET = """
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <pads = [1, 1, 1, 1], group = 8> (r1, w2, b2)
    c3 = Conv <pads = [1, 1, 1, 1]> (c2, w3, b3)
    a = Add (c3, r1)
    r2 = Relu (a)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2)
    s = Sigmoid (p)
    k = Concat <axis = 1> (p, s)
    g = GlobalAveragePool (k)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, w4, b4)
"""
NET_CONSTANTS = {
    "w1": floats(8, 3, 3, 3) / 3,
    "b1": floats(8) / 5,
    "w2": floats(8, 1, 3, 3) / 2,
    "b2": floats(8, seed=1) / 5,
    "w3": floats(8, 8, 3, 3) / 5,
    "b3": floats(8, seed=2) / 5,
    "w4": floats(5, 16) / 2,
    "b4": floats(5),
}


class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Four random images for ONNX Runtime's own calibration."""

    def __init__(self) -> None:
        self._rows: Iterator[dict[str, Array]] = iter([{"x": floats(1, 3, 8, 8, seed=i)} for i in range(4)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._rows, None)


def quantized(folder: Path, activation: Any, weight: Any, per_channel: bool) -> onnx.ModelProto:
    """The net as ONNX Runtime's quantizer writes it, with Q/DQ nodes."""
    proto = model(IMAGE, NET, NET_CONSTANTS, ["y", "k"])
    for value, shape in zip(proto.graph.output, ([1, 5], [1, 16, 4, 4]), strict=True):
        value.type.CopyFrom(onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, shape))
    source, target = save(proto, folder, "float.onnx"), folder / "quantized.onnx"
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            source,
            target,
            Samples(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=activation,
            weight_type=weight,
            per_channel=per_channel,
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(target)


def operators(graph: ir.Model) -> set[str]:
    return {node.op_type for node in graph.graph}


def parameters_in(proto: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every QuantizeLinear by the tensor it reads, on the signed grid."""
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = constants[node.input[2]]
            shift = {"uint8": -128, "uint16": -32768}.get(zero.dtype.name, 0)
            found[node.input[0]] = (float(constants[node.input[1]]), int(zero) + shift)
    return found


def simulated(path: Path, x: Array, dataset: Path | None = None) -> list[Array]:
    session = Session(Config(target_platform="rk3588"))
    session.load_onnx(path)
    session.build(do_quantization=dataset is not None, dataset=dataset)
    return session.infer([x], data_format="nchw")


CASES = {
    "uint8, weights int8 per channel": (U8, I8, True),
    "uint8, weights int8": (U8, I8, False),
    "uint8, weights uint8": (U8, U8, False),
    "int8, weights int8 per channel": (I8, I8, True),
    "int8, weights int8": (I8, I8, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_quantized_net_keeps_its_parameters_and_simulates_as_onnxruntime_runs_it(case: str, tmp_path: Path) -> None:
    proto = quantized(tmp_path, *CASES[case])
    path, own = tmp_path / "quantized.onnx", parameters_in(proto)
    graph = load(path)
    assert operators(graph).isdisjoint(QUANTIZERS)
    assert [v.name for v in graph.graph.outputs] == ["y", "k"]
    kept = {v.name: given(v) for node in graph.graph for v in node.outputs} | {"x": given(graph.graph.inputs[0])}
    # ONNX Runtime's quantizer calls the tensor before the pair of an output by another name.
    for name, (scale, zero) in {n.removesuffix("_QuantizeLinear_Input"): p for n, p in own.items()}.items():
        parameters = kept[name]
        assert parameters is not None and (parameters.scale, parameters.zero_point) == ((scale,), (zero,))
    weights = [given(v) for v in graph.graph.initializers.values()]
    channels = [len(p.scale) for p in weights if p is not None and p.dtype == "int8"]
    assert sorted(channels) == ([5, 8, 8, 8] if CASES[case][2] else [1, 1, 1, 1])
    (tmp_path / "dataset.txt").write_text("x.npy\n")
    np.save(tmp_path / "x.npy", floats(1, 3, 8, 8, seed=3) * 9)  # another range than the model's own
    differing = count = 0
    for seed in range(9, 13):
        x = floats(1, 3, 8, 8, seed=seed)
        expected = run(proto, {"x": x})
        for dataset in (None, tmp_path / "dataset.txt"):
            for name, found, wanted in zip(("y", "k"), simulated(path, x, dataset), expected, strict=True):
                step = own.get(name, own.get(f"{name}_QuantizeLinear_Input", (0, 0)))[0]
                assert np.abs(found - wanted).max() <= step * 1.001
                differing += int((np.abs(found - wanted) > step / 2).sum())
                count += found.size
    assert differing <= count / 1000


def pair(source: str, target: str, parameters: str) -> str:
    """Lines of a QuantizeLinear and a DequantizeLinear with the constants `parameters`."""
    grid = f"{target}_q"
    return f"{grid} = QuantizeLinear ({source}, {parameters})\n{target} = DequantizeLinear ({grid}, {parameters})\n"


PARAMETERS: dict[str, Array] = {
    "s": np.float32(0.05),
    "z": np.uint8(128),
    "s2": np.float32(0.03),
    "z2": np.int8(-7),
    "s16": np.float32(0.0001),
    "z16": np.uint16(32768),
    "zi16": np.int16(5),
    "w8": np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    "ws": np.array([0.01, 0.02, 0.015, 0.005], np.float32),
    "wz": np.zeros(4, np.int8),
    "ws1": np.float32(0.01),
    "wz1": np.int8(3),
    "b32": np.array([100, -200, 300, 0], np.int32),
    "bs": np.array([0.0005, 0.001, 0.00075, 0.00025], np.float32),
    "bz": np.zeros(4, np.int32),
    "w": floats(4, 3, 3, 3) / 4,
    "b": floats(4),
}
WEIGHT = "wd = DequantizeLinear <axis = 0> (w8, ws, wz)\n"


def assert_simulates(proto: onnx.ModelProto, folder: Path, *, steps: float = 0.0, step: float = 0.05) -> None:
    """The simulator's outputs are those of ONNX Runtime up to `steps` quantization steps of size `step`."""
    path = save(proto, folder)
    for seed in range(3):
        x = floats(1, 3, 8, 8, seed=seed)
        for found, wanted in zip(simulated(path, x), run(proto, {"x": x}), strict=True):
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= steps * step + 1e-5


def test_an_output_behind_a_pair_keeps_its_name(tmp_path: Path) -> None:
    body = pair("x", "xd", "s, z") + WEIGHT + "c = Conv (xd, wd)\nr = Relu (c)\n" + pair("r", "y", "s, z")
    proto = model(IMAGE, body, PARAMETERS)
    graph = load(save(proto, tmp_path))
    assert [v.name for v in graph.graph.outputs] == ["y"] and operators(graph) == {"Conv", "Relu"}
    assert given(graph.graph.outputs[0]) == GivenParameters("int8", (float(np.float32(0.05)),), (0,))
    assert_simulates(proto, tmp_path)


def test_an_output_that_is_also_read_inside_keeps_its_name(tmp_path: Path) -> None:
    body = pair("x", "xd", "s, z") + "c = Conv (xd, w)\n" + pair("c", "y", "s, z") + "t = Relu (y)\n"
    proto = model(IMAGE, body + pair("t", "v", "s, z"), PARAMETERS, ["v", "y"])
    graph = load(save(proto, tmp_path))
    assert [v.name for v in graph.graph.outputs] == ["v", "y"] and operators(graph) == {"Conv", "Relu"}


def test_a_pair_between_an_input_and_an_output_still_rounds(tmp_path: Path) -> None:
    proto = model(IMAGE, pair("x", "y", "s, z") + "v = Relu (x)", PARAMETERS, ["y", "v"])
    graph = load(save(proto, tmp_path))
    assert [v.name for v in graph.graph.outputs] == ["y", "v"]
    x = floats(1, 3, 8, 8)
    np.testing.assert_allclose(run_float(graph, {"x": x})[0], run(proto, {"x": x})[0])


def test_equal_pairs_for_each_reader_are_one(tmp_path: Path) -> None:
    body = pair("x", "x1", "s, z") + pair("x", "x2", "s, z") + "t = Relu (x1)\nu = Sigmoid (x2)\n"
    body += pair("t", "td", "s, z") + pair("u", "ud", "s, z") + "c = Add (td, ud)\n" + pair("c", "y", "s, z")
    graph = load(save(model(IMAGE, body, PARAMETERS), tmp_path))
    assert operators(graph) == {"Relu", "Sigmoid", "Add"}
    assert_simulates(model(IMAGE, body, PARAMETERS), tmp_path)


def test_a_second_different_pair_stays_in_the_graph(tmp_path: Path) -> None:
    """A tensor has one grid; what reads it through another one gets what the model says, up to one step."""
    body = pair("x", "xd", "s, z") + "t = Conv (xd, w, b)\n" + pair("t", "t1", "s, z") + pair("t", "t2", "s2, z2")
    body += "v = Relu (t1)\nu = Sigmoid (t2)\n" + pair("v", "vd", "s, z") + pair("u", "y", "s2, z2")
    proto = model(IMAGE, body, PARAMETERS, ["vd", "y"])
    graph = load(save(proto, tmp_path))
    assert [node.op_type for node in graph.graph].count("DequantizeLinear") == 1
    float_body = "t = Conv (x, w, b)\nvd = Relu (t)\n" + pair("t", "t2", "s2, z2") + "y = Sigmoid (t2)"
    x = floats(1, 3, 8, 8)
    expected = run(model(IMAGE, float_body, PARAMETERS, ["vd", "y"]), {"x": x})
    for found, wanted in zip(run_float(graph, {"x": x}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert_simulates(proto, tmp_path, steps=1)


def test_without_a_zero_point_the_grid_is_unsigned_from_zero(tmp_path: Path) -> None:
    body = pair("x", "xd", "s") + "r = Relu (xd)\n" + pair("r", "y", "s")
    proto = model(IMAGE, body, PARAMETERS)
    graph = load(save(proto, tmp_path))
    assert given(graph.graph.inputs[0]) == GivenParameters("int8", (float(np.float32(0.05)),), (-128,))
    assert_simulates(proto, tmp_path)


@pytest.mark.parametrize(("zero", "expected"), [("z16", 0), ("zi16", 5)])
def test_sixteen_bit_grids_are_kept(zero: str, expected: int, tmp_path: Path) -> None:
    body = pair("x", "xd", f"s16, {zero}") + "r = Tanh (xd)\n" + pair("r", "y", f"s16, {zero}")
    proto = model(IMAGE, body, PARAMETERS, opset=21)
    parameters = given(load(save(proto, tmp_path)).graph.inputs[0])
    assert parameters == GivenParameters("int16", (float(np.float32(0.0001)),), (expected,))
    assert_simulates(proto, tmp_path, steps=1, step=0.0001)


def test_an_activation_with_a_grid_for_each_channel_still_rounds(tmp_path: Path) -> None:
    """The NPU has one grid a tensor, so the nodes stay and compute what the model says."""
    constants = PARAMETERS | {"cs": np.array([0.01, 0.1, 0.2], np.float32), "cz": np.array([0, 3, -5], np.int8)}
    body = "r = Relu (x)\nq = QuantizeLinear <axis = 1> (r, cs, cz)\nd = DequantizeLinear <axis = 1> (q, cs, cz)\n"
    proto = model(IMAGE, body + "y = Conv (d, w, b)", constants)
    assert_loads_as(proto, tmp_path, tolerance=1e-4)


def test_biases_in_int32_and_shared_weights_are_kept(tmp_path: Path) -> None:
    body = pair("x", "xd", "s, z") + WEIGHT + "bd = DequantizeLinear <axis = 0> (b32, bs, bz)\n"
    body += "c = Conv (xd, wd, bd)\nr = Relu (xd)\n" + pair("r", "rd", "s, z") + "e = Conv (rd, wd, bd)\n"
    proto = model(IMAGE, body + pair("c", "v", "s, z") + pair("e", "y", "s, z"), PARAMETERS, ["v", "y"])
    graph = load(save(proto, tmp_path))
    assert operators(graph) == {"Conv", "Relu"}
    first, second = (node for node in graph.graph if node.op_type == "Conv")
    assert first.inputs[1] is second.inputs[1] and first.inputs[2] is second.inputs[2]
    weight, bias = (given(value) for value in first.inputs[1:] if value is not None)
    assert weight == GivenParameters("int8", tuple(PARAMETERS["ws"].astype(np.float64).tolist()), (0, 0, 0, 0), 0)
    assert bias is not None and (bias.dtype, bias.axis, len(bias.scale)) == ("int32", 0, 4)
    assert_simulates(proto, tmp_path)


@pytest.mark.parametrize("parameters", ["ws1, wz1", "ws, wz"])
def test_weights_that_the_model_rounds_itself_are_kept(parameters: str, tmp_path: Path) -> None:
    """A float weight with a pair behind it, as training with fake quantization exports it."""
    axis = " <axis = 0>"
    body = pair("x", "xd", "s, z") + f"wq = QuantizeLinear{axis} (w, {parameters})\n"
    body += f"wd = DequantizeLinear{axis} (wq, {parameters})\nc = Conv (xd, wd)\n" + pair("c", "y", "s, z")
    proto = model(IMAGE, body, PARAMETERS)
    graph = load(save(proto, tmp_path))
    assert operators(graph) == {"Conv"}
    (conv,) = graph.graph
    own = given(conv.inputs[1])  # type: ignore[arg-type]
    assert own is not None and len(own.scale) == (1 if parameters == "ws1, wz1" else 4)
    assert_simulates(proto, tmp_path)


def test_a_weight_that_is_turned_behind_its_grid_keeps_it(tmp_path: Path) -> None:
    constants = PARAMETERS | {
        "m8": np.arange(-30, 30, dtype=np.int8).reshape(5, 12),
        "ms": np.array([0.01, 0.02, 0.03, 0.04, 0.05], np.float32),
        "mz": np.zeros(5, np.int8),
    }
    body = (
        pair("x", "xd", "s, z") + "md = DequantizeLinear <axis = 0> (m8, ms, mz)\nt = Transpose <perm = [1, 0]> (md)\n"
    )
    body += "h = MatMul (xd, t)\n" + pair("h", "y", "s, z")
    proto = model({"x": (1, 3, 8, 12)}, body, constants)
    graph = load(save(proto, tmp_path))
    (product,) = graph.graph
    own = given(product.inputs[1])  # type: ignore[arg-type]
    assert own is not None and own.axis == 1 and own.scale == tuple(constants["ms"].astype(np.float64).tolist())


@pytest.mark.parametrize("level", range(4))
def test_optimizing_keeps_the_parameters_of_a_quantized_net(level: int, tmp_path: Path) -> None:
    proto = quantized(tmp_path, U8, I8, True)
    session = Session(Config(target_platform="rk3588", optimization_level=level))
    session.load_onnx(tmp_path / "quantized.onnx")
    session.build(do_quantization=False)
    x = floats(1, 3, 8, 8, seed=5)
    for found, wanted in zip(session.infer([x], data_format="nchw"), run(proto, {"x": x}), strict=True):
        assert np.abs(found - wanted).max() <= 0.06


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s": np.float32(0)}, "not a positive number"),
        ({"s": np.float32(-1)}, "not a positive number"),
        ({"s": np.float32("nan")}, "not a positive number"),
        ({"s": np.float32("inf")}, "not a positive number"),
        ({"s": np.array([0.1, 0.2], np.float32)}, "xd"),
        ({"ws": np.array([0.1, 0.2], np.float32)}, "wd"),
        ({"wz": np.zeros(3, np.int8)}, "wd"),
    ],
)
def test_impossible_parameters_are_refused(change: Mapping[str, Array], message: str, tmp_path: Path) -> None:
    body = pair("x", "xd", "s, z") + WEIGHT + "y = Conv (xd, wd)"
    with pytest.raises(ModelError) as caught:
        load(save(model(IMAGE, body, {**PARAMETERS, **change}), tmp_path))
    assert message in str(caught.value)


def test_a_scale_that_the_model_computes_is_refused(tmp_path: Path) -> None:
    body = "m = ReduceMax <keepdims = 0> (x)\n" + pair("x", "xd", "m, z") + "y = Relu (xd)"
    with pytest.raises(ModelError, match="not a constant"):
        load(save(model(IMAGE, body, PARAMETERS), tmp_path))


def test_weights_on_grids_that_the_npu_lacks_become_plain_numbers(tmp_path: Path) -> None:
    proto = model(IMAGE, "d = DequantizeLinear <axis = 0> (n, ws)\ny = Conv (x, d)", PARAMETERS, opset=21)
    values = np.random.default_rng(1).integers(-8, 8, 4 * 27)
    proto.graph.initializer.append(onnx.helper.make_tensor("n", TensorProto.INT4, (4, 3, 3, 3), values.tolist()))
    graph = assert_loads_as(proto, tmp_path, tolerance=1e-4)
    assert operators(graph) == {"Conv"}


@settings(max_examples=25, deadline=None)
@each(
    st.floats(2**-10, 0.5, width=32),
    st.integers(0, 255),
    st.sampled_from(["Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Abs"]),
    st.booleans(),
)
def test_any_grid_simulates_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, scale: float, zero: int, op: str, signed: bool
) -> None:
    point = np.int8(zero - 128) if signed else np.uint8(zero)
    body = pair("x", "xd", "s, p") + f"r = {op} (xd)\n" + pair("r", "y", "s, p")
    proto = model(IMAGE, body, {"s": np.float32(scale), "p": point})
    assert_simulates(proto, tmp_path_factory.mktemp("grid"))
