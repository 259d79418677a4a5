"""Quantized TorchScript models keep the scales that they were given, and answer as torch does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.graph.given import given
from engine.ort import serialize
from engine.session import Session
from tests.engine.frontends.pytorch_models import F, check_traced, floats, graph_of, nn, scripted, torch, traced

torch.backends.quantized.engine = "qnnpack"
quantization: Any = torch.ao.quantization


class Small(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, 2, groups=1), nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.sum = torch.ao.nn.quantized.FloatFunctional()
        self.fc, self.last = nn.Linear(8, 16), nn.Linear(16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.quant(x)))
        x = self.sum.add_relu(x, self.depthwise(x))
        x = F.max_pool2d(x, 2).mean([2, 3])
        return self.dequant(self.last(self.relu(self.fc(x))))


class Many(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.swish, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish(), nn.BatchNorm2d(8)
        self.back, self.leaky, self.sigmoid, self.elu = (
            nn.ConvTranspose2d(8, 8, 2, 2),
            nn.LeakyReLU(),
            nn.Sigmoid(),
            nn.ELU(),
        )
        self.ops = nn.ModuleList([torch.ao.nn.quantized.FloatFunctional() for _ in range(4)])
        self.fc = nn.Linear(16 * 6 * 6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.swish(self.norm(self.conv(self.quant(x))))
        b = F.max_pool2d(self.leaky(self.back(a)), 2)
        c = self.ops[0].mul(a, self.sigmoid(b))
        d = self.ops[1].cat([c, self.elu(a)], 1)
        d = F.interpolate(F.avg_pool2d(d, 2), scale_factor=2.0)
        d = self.ops[2].add_scalar(F.relu6(d), 0.5)
        d = F.avg_pool2d(self.ops[3].mul_scalar(d, 1.5), 2)
        return self.dequant(self.fc(d.reshape(d.shape[0], -1)))


def quantized(module: Any, sample: Any) -> Any:
    """The module after static quantization, calibrated with one sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.eval()
        if hasattr(module, "depthwise"):
            quantization.fuse_modules(module, [["conv", "relu"]], inplace=True)
        module.qconfig = quantization.get_default_qconfig("qnnpack")
        quantization.prepare(module, inplace=True)
        module(sample)
        quantization.convert(module, inplace=True)
    return module


def answers(tmp_path: Path, module: Any, sample: Any) -> tuple[Any, Any, float]:
    """The int8 build's output, torch's, and a step of the output's grid."""
    model = graph_of(module, sample)
    path = tmp_path / "model.onnx"
    path.write_bytes(serialize(model))
    session = Session()
    session.load_onnx(path)
    summary = session.build()
    assert summary.precision == "int8"
    with torch.no_grad():
        reference = module(sample).numpy()
    parameters = given(model.graph.outputs[0])
    assert parameters is not None
    return session.infer([sample.numpy()], data_format="nchw")[0], reference, parameters.scale[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "script"), [(Small, True), (Many, False)])
def test_statically_quantized_modules_answer_as_torch_does(tmp_path: Path, make: Any, script: bool) -> None:
    torch.manual_seed(1)
    sample = floats(1, 3, 12, 12)
    module = quantized(make(), sample)
    found, reference, step = answers(tmp_path, scripted(module) if script else traced(module, sample), sample)
    assert np.abs(found - reference).max() <= 1.01 * step
    assert found.argmax() == reference.argmax()


@pytest.mark.filterwarnings("ignore")
def test_weights_keep_their_grid_and_biases_its_steps() -> None:
    torch.manual_seed(1)
    sample = floats(1, 3, 12, 12)
    model = graph_of(scripted(quantized(Small(), sample)), sample)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    x, weight, bias = conv.inputs
    assert x is not None and weight is not None and bias is not None
    assert x.is_graph_input()
    grids = [given(value) for value in (x, weight)]
    assert grids[0] is not None and grids[1] is not None
    assert (grids[1].dtype, grids[1].zero_point) == ("int8", (0,))
    steps = bias.const_value.numpy() / (grids[0].scale[0] * grids[1].scale[0])  # type: ignore[union-attr]
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantized_layers_keep_their_weights() -> None:
    torch.manual_seed(1)
    module = quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 5), nn.ReLU()).eval(), {nn.Linear})
    sample = floats(3, 8)
    model = graph_of(traced(module, sample), sample)
    gemm = next(node for node in model.graph if node.op_type == "Gemm")
    assert gemm.inputs[1] is not None
    assert given(gemm.inputs[1]) is not None
    assert given(gemm.outputs[0]) is None


@pytest.mark.filterwarnings("ignore")
def test_modules_in_training_for_integers_bring_their_grids() -> None:
    torch.manual_seed(1)
    sample = floats(1, 3, 12, 12)
    module = nn.Sequential(quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU()).train()
    module.qconfig = quantization.get_default_qat_qconfig("qnnpack")
    quantization.prepare_qat(module, inplace=True)(sample)
    module.eval().apply(quantization.disable_observer)
    model = check_traced(module, sample, tolerance=0.02)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    assert all(given(value) is not None for value in (conv.inputs[0], conv.inputs[1], conv.outputs[0]) if value)


class Recurrent(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), nn.GRU(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)[0])[0]


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantized_recurrent_layers() -> None:
    torch.manual_seed(1)
    module = quantization.quantize_dynamic(Recurrent().eval(), {nn.LSTM, nn.GRU})
    model = check_traced(module, floats(1, 6, 4), tolerance=0.02)
    assert [node.op_type for node in model.graph if node.op_type in ("LSTM", "GRU")] == ["LSTM", "LSTM", "GRU"]
