"""The quantized model as Q/DQ ONNX computes in plain ONNX Runtime nearly what the simulator does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.config import Config
from engine.errors import OrderError
from engine.quantization.edits import Edits, edited
from engine.quantization.quantized import Quantized
from engine.session import Session
from engine.simulator.quantized_onnx import to_qdq
from engine.simulator.runner import Simulator
from tests.end_to_end import zoo_models
from tests.end_to_end.zoo_models import ZooModel
from tests.small_networks import built, network, random
from tests.zoo import needs_zoo

Array = np.ndarray[Any, Any]

LEAST_COSINE = 0.995
"""Where a float32 sum lies half way between two steps, runtimes that add in another order round it to another one, and
over a hundred layers one step becomes some: the detector is the worst with 0.997."""

SOURCE = network(
    {"x": (1, 4, 8, 8)},
    """c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (c)
    t = ConvTranspose <group = 2> (r, v, d)
    s = Sigmoid (t)
    p = AveragePool <kernel_shape = [8, 8]> (s)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, g, h)""",
    {
        "w": random(6, 4, 3, 3), "b": random(6), "v": random(6, 2, 1, 1, seed=3), "d": random(4, seed=4) * 9,
        "g": random(5, 4, seed=5), "h": random(5, seed=6),
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("built")
    return built(folder, SOURCE, [[random(1, 4, 8, 8, seed=n)] for n in range(3)], bias_correction=True)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("wide")
    return built(folder, SOURCE, [[random(1, 4, 8, 8)]], quantized_dtype="asymmetric_quantized-16")


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], *, optimized: bool) -> list[Array]:
    """The outputs of a session as any program would make it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def assert_near(quantized: Quantized, steps: float) -> onnx.ModelProto:
    """The outputs are so many steps of their grids from the simulator's, at most."""
    model = to_qdq(quantized)
    onnx.checker.check_model(model, full_check=True)
    feeds = {"x": random(1, 4, 8, 8, seed=9)}
    (expected,) = Simulator(quantized).run(feeds)
    row = quantized.table.quantizer("y")
    scale = float(np.abs(expected).max()) / 100 if row is None else row.scale
    assert scale is not None
    for optimized in (False, True):
        (found,) = run(model, feeds, optimized=optimized)
        assert float(np.abs(found - expected).max()) <= steps * scale * 1.001
    return model


@pytest.mark.parametrize("wishes", [{}, {"r": "float16"}, {"r": "int16"}, {"s": "float16", "y": "float16"}])
def test_it_computes_what_the_simulator_does(wishes: dict[str, str], session: Session) -> None:
    quantized = edited(session._require_built("").single, Edits(wishes), session.config.target)
    assert_near(quantized, 1)


def test_int16_models_use_the_standards_operators(wide: Session) -> None:
    # As many steps as a tenth of one of int8.
    model = assert_near(wide._require_built("").single, 25)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 21)}
    assert {node.domain for node in model.graph.node} == {""}


def test_weights_and_biases_are_integers_and_fused_layers_stay_so(session: Session) -> None:
    model = to_qdq(session._require_built("").single)
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["y"]
    made = {node.output[0]: node for node in model.graph.node}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    (relu,) = (node for node in model.graph.node if node.op_type == "Relu")
    conv = made[relu.input[0]]
    assert conv.op_type == "Conv"
    weight, bias = (made[name] for name in conv.input[1:])
    assert [one.op_type for one in (weight, bias)] == ["DequantizeLinear"] * 2
    assert kinds[weight.input[0]] == onnx.TensorProto.INT8 and kinds[bias.input[0]] == onnx.TensorProto.INT32
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all(len(tensor.dims) < 2 for tensor in floats)


def test_loading_it_gives_the_same_table(session: Session, tmp_path: Path) -> None:
    quantized = session._require_built("").single
    path = tmp_path / "qdq.onnx"
    path.write_bytes(to_qdq(quantized).SerializeToString())
    other = Session(session.config)
    other.load_onnx(path)
    other.build(do_quantization=False)
    for name in ("x", "r", "t", "s", "p", "y"):
        own, found = quantized.table.quantizer(name), other.table.quantizer(name)
        assert own is not None and found is not None, name
        assert (np.float32(found.scale), found.zero_point) == (np.float32(own.scale), own.zero_point)


def test_a_session_writes_it(tmp_path: Path) -> None:
    proto = network({"x": (1, 4)}, "m = Mul (x, x)\ny = Relu (m)", {})
    folder = tmp_path / "built"
    folder.mkdir()
    small = built(folder, proto, [[random(1, 4)]])
    session = Session()
    with pytest.raises(OrderError):
        session.export_qdq(tmp_path / "m.onnx")
    session.load_rknn(small.export(tmp_path / "m.rknn"))
    path = session.export_qdq(tmp_path / "m.onnx")
    x = random(1, 4, seed=3)
    (found,) = run(onnx.load(path), {"x": x}, optimized=True)
    np.testing.assert_allclose(found, session.infer([x])[0], atol=1e-6)
    assert session.export_qdq(tmp_path / "n.onnx").read_bytes() == path.read_bytes()


@needs_zoo
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        pytest.param(model, f"asymmetric_quantized-{bits}", id=f"{model.label}-int{bits}")
        for model in zoo_models.models()
        for bits in ((8, 16) if model.framework == "onnx" else (8,))
    ],
)
def test_real_models_compute_nearly_the_same(model: ZooModel, dtype: str, tmp_path: Path) -> None:
    if model.framework == "pytorch":
        pytest.importorskip("torch", reason="PyTorch models are read with the package torch")
    session = Session(Config(target_platform="rk3588", quantized_dtype=dtype))
    model.load(session)
    session.build(dataset=zoo_models.dataset(model, session, tmp_path)[0])
    quantized = session._require_built("").quantized
    proto = to_qdq(quantized)
    onnx.checker.check_model(proto, full_check=True)
    names = [value.name or "" for value in quantized.model.graph.inputs]
    feeds = dict(zip(names, zoo_models.feeds(model, session), strict=True))
    expected = Simulator(quantized).run(feeds)
    for optimized in (False, True):
        pairs = list(zip(expected, run(proto, feeds, optimized=optimized), strict=True))
        cosine = min(zoo_models.cosine(wanted, found) for wanted, found in pairs)
        largest = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)
        how = "optimized" if optimized else "plain"
        print(f"{model.label} {session.config.precision} {how}: cosine {cosine:.6f}, largest difference {largest:.5f}")
        assert cosine > LEAST_COSINE
