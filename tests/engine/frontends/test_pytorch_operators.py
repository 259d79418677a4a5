"""TorchScript operators, one by one, against torch itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.frontends.pytorch_models import F, check_traced, floats, nn, torch

IMAGE = (2, 6, 9, 8)
SEQUENCE = (2, 6, 10)
MATRIX = (5, 7)

ELEMENTWISE: dict[str, Callable[[Any], Any]] = {
    "activations": lambda x: [
        F.relu(x), F.relu6(x * 3), F.sigmoid(x), F.tanh(x), F.hardswish(x * 3), F.hardsigmoid(x), F.mish(x), F.silu(x),
        F.selu(x), F.elu(x, 0.7), F.celu(x, 0.6), F.gelu(x), F.gelu(x, approximate="tanh"), F.softplus(x * 4, 2.0, 3.0),
        F.leaky_relu(x, 0.2), F.softsign(x), F.logsigmoid(x), F.hardshrink(x), F.softshrink(x), F.tanhshrink(x),
        F.hardtanh(x, -0.3, 0.4), F.threshold(x, 0.1, -3.0), F.glu(x[:, :6]), F.rrelu(x, training=False),
    ],
    "softmax": lambda x: [F.softmax(x, 0), F.log_softmax(x, -1), F.softmin(x, 1), torch.logsumexp(x, (0, 1))],
    "unary": lambda x: [
        torch.atan2(x, x.flip(1)),
        x.abs().sqrt(), x.exp(), (x.abs() + 1).log(), x.erf(), x.sign(), x.floor(), x.ceil(), x.round(),
        x.round(decimals=1), x.trunc(), x.frac(), (x.abs() + 1).rsqrt(), x.neg(), x.reciprocal(), x.square(), x.sin(),
        x.cos(), (x.abs() + 1).log2(), (x.abs() + 1).log10(), x.abs().log1p(), x.expm1(), x.exp2(), x.atan(), x.erfc(),
        x.nan_to_num(), torch.isnan(x), torch.isinf(x),
    ],
    "arithmetic": lambda x: [
        torch.add(x, x * 2, alpha=2), torch.sub(x, 3, alpha=0.5), torch.rsub(x, x.exp(), alpha=3), 1 - x,
        2 / (x.abs() + 1), x**2, x.abs() ** 0.5, x.abs() ** 1.7, 2**x, x.abs().pow(x), torch.maximum(x, -x),
        torch.minimum(x, -x), torch.addcmul(x, x, x, value=2), torch.addcdiv(x, x, x.abs() + 1, value=0.5),
        torch.lerp(x, x * 2, 0.3), x.clamp(-0.5, 0.5), x.clamp(min=0), x.clamp_max(0.3), torch.clamp(x, x / 2, x + 9),
    ],
    "division": lambda x: [
        x.remainder(0.7), x.fmod(0.7), torch.div(x, 0.3, rounding_mode="floor"),
        torch.div(x, 0.3, rounding_mode="trunc"), x // 0.4,
    ],
    "comparisons": lambda x: [
        x > 0.1, x >= 0, x < 0, x <= 0.1, x == x.floor(), x != 0, (x > 0) & (x < 1), (x > 0) | (x < -1), ~(x > 0),
        torch.logical_xor(x > 0, x > 0.5), torch.logical_not(x > 0), x.bool(),
    ],
    "whole numbers": lambda x: [
        (x > 0).long() * 2 + 1, (x > 0).long() // 2, ((x > 0).long() - 3) % 2, (x * 3).int(), (x > 0).to(torch.uint8),
        (x > 0).sum(1), (x > 0).float().mean(), (x > 0).any(1), (x > -1).all(), (x > 0) + (x > 1),
    ],
    "choices": lambda x: [
        x.masked_fill(x > 0, -1.0), torch.where(x > 0, x, x * 2), torch.where(x > 0, 1.0, x), x.triu(1), x.tril(-1),
    ],
    "shapes": lambda x: [
        x.view(7, -1), x.reshape(-1), torch.flatten(x), x.unflatten(0, (5, 1)), x.t(), x.T, x.mT, x.unsqueeze(-2),
        x[:1].squeeze(), x[:1].squeeze(0), x[:1].expand(3, -1), x.repeat(2, 1, 3), x.tile(2), x.movedim(0, 1),
        x.repeat_interleave(2, 1),
        x.permute(1, 0), x.roll((1, -2), (0, 1)), x.roll(3), x.flip(0, 1),
        x.view_as(x.t()),
        torch.broadcast_tensors(x, x[:1])[1], x.unfold(1, 3, 2),
    ],
    "joins and parts": lambda x: [
        torch.cat([x, x[:, :2]], 1), torch.stack([x, x * 2], -1), torch.hstack([x, x]), torch.vstack([x, x]),
        torch.dstack([x, x]), x.split(2, 1), x.split([1, 6], 1), x.chunk(3, 1), x.unbind(0),
        torch.tensor_split(x, 3, 1),
        x.narrow(1, 2, 3), x[:, -2], x[1:-1, ::2], x[..., None, 1], torch.meshgrid(x[0, :2], x[1, :3], indexing="ij"),
    ],
    "places": lambda x: [
        x[:, [0, 3, 3]], x[[0, 3], [1, 2]], x.index_select(0, torch.tensor([1, 0])), x[:, torch.arange(7) > 3],
        x.gather(1, torch.tensor([[0, 1], [2, 3]])),
        torch.take_along_dim(x, torch.tensor([[1], [0], [2], [0], [6]]), 1),
        x.scatter(0, torch.tensor([[1, 2]]), 2.0), x.scatter_add(1, torch.tensor([[0, 0]]), x),
    ],
    "reductions": lambda x: [
        x.sum(), x.mean(), x.max() - x.min(), x.std(), x.sum(1), x.mean((0, 1), keepdim=True), x.amax(0), x.amin(1),
        x.prod(1), x.var(1, unbiased=False), x.std(0, keepdim=True), torch.var_mean(x, (1,)), x.norm(dim=1), x.norm(1),
        x.norm(3, 1), F.normalize(x, dim=1), torch.linalg.vector_norm(x, ord=float("inf")), x.max(1), x.min(0)[0],
        x.argmax(1), x.argmax(), x.argmin(1, keepdim=True), x.cumsum(1), x.topk(3, 1), x.sort(1, descending=True),
        F.cosine_similarity(x, x * 2 + 1, dim=1), F.pairwise_distance(x, x * 2), torch.cdist(x, x[:2]),
    ],
    "products": lambda x: [
        x.t() @ x, torch.mm(x, x.t()), x @ x[0], torch.mv(x, x[1]), torch.outer(x[0], x[1]), torch.dot(x[0], x[1]),
        torch.addmm(torch.ones(3), x, torch.ones(7, 3), beta=0.5, alpha=2.0), F.linear(x[0], torch.ones(2, 7)),
    ],
    "made from nothing": lambda x: [
        x + torch.arange(x.shape[1]) + torch.zeros(x.shape) + torch.ones_like(x) + torch.full((1,), 2.0),
        x.new_zeros(5, 1) + torch.eye(5, 7) + torch.linspace(0, 1, 7) + x, torch.triu(torch.ones(5, 7)) + x,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_functions_of_a_matrix(name: str) -> None:
    check_traced(lambda x: tuple(ELEMENTWISE[name](x)), floats(*MATRIX), tolerance=2e-5)


LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "padding like the input": (lambda: nn.Conv2d(6, 8, (3, 4), padding="same", dilation=2), IMAGE),
    "no padding": (lambda: nn.Conv2d(6, 8, 3, padding="valid", bias=False), IMAGE),
    "padding mirrored": (lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), IMAGE),
    "padding round": (lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"), IMAGE),
    "one dimension": (lambda: nn.Conv1d(6, 4, 3, padding=1), SEQUENCE),
    "three dimensions": (lambda: nn.Conv3d(2, 4, 2), (1, 2, 4, 5, 6)),
    "without batch": (lambda: nn.Conv2d(6, 8, 3), (6, 9, 8)),
    "transposed": (lambda: nn.ConvTranspose1d(6, 4, 3, 2, dilation=2), SEQUENCE),
    "batch norm": (lambda: nn.BatchNorm2d(6), IMAGE),
    "batch norm of a matrix": (lambda: nn.BatchNorm1d(7, affine=False), MATRIX),
    "layer norm": (lambda: nn.LayerNorm(8), IMAGE),
    "layer norm without weights": (lambda: nn.LayerNorm((9, 8), elementwise_affine=False), IMAGE),
    "group norm": (lambda: nn.GroupNorm(3, 6), IMAGE),
    "instance norm": (lambda: nn.InstanceNorm2d(6, affine=True), IMAGE),
    "instance norm with statistics": (lambda: nn.InstanceNorm2d(6, track_running_stats=True), IMAGE),
    "root mean square norm": (lambda: nn.RMSNorm(8), IMAGE),
    "local response norm": (lambda: nn.LocalResponseNorm(3), IMAGE),
    "slope of each channel": (lambda: nn.PReLU(6, 0.2), IMAGE),
    "slope of all": (lambda: nn.PReLU(), IMAGE),
    "linear": (lambda: nn.Linear(7, 3), MATRIX),
    "linear of a sequence": (lambda: nn.Linear(10, 3), SEQUENCE),
    "adaptive means": (lambda: nn.AdaptiveAvgPool2d((4, 5)), IMAGE),
    "adaptive means that grow": (lambda: nn.AdaptiveAvgPool2d((12, None)), IMAGE),
    "adaptive maxima": (lambda: nn.AdaptiveMaxPool2d((4, 5)), IMAGE),
    "global mean": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "other divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), IMAGE),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (1, 8, 3, 4)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (1, 3, 4, 6)),
    "channel shuffle": (lambda: nn.ChannelShuffle(3), IMAGE),
    "windows": (lambda: nn.Unfold((2, 3), 1, 1, 2), IMAGE),
    "windows back": (lambda: nn.Fold((4, 5), (2, 2)), (1, 8, 12)),
    "padding": (lambda: nn.ConstantPad2d((1, 2, -1, 3), 0.5), IMAGE),
    "padding with the edge": (lambda: nn.ReplicationPad2d((1, 2, 2, 3)), IMAGE),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(7, 3)), MATRIX),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.3)), IMAGE),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "encoder, norm first": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
        (2, 5, 8),
    ),
    "LSTM cell": (lambda: nn.LSTMCell(4, 5), (3, 4)),
    "GRU cell": (lambda: nn.GRUCell(4, 5), (3, 4)),
    "plain cell": (lambda: nn.RNNCell(4, 5), (3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    check_traced(make(), floats(*shape), tolerance=2e-5)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhid,bhjd->bhij", [(1, 2, 3, 4), (1, 2, 5, 4)]),
        ("bhij,bhjd->bhid", [(1, 2, 3, 4), (1, 2, 4, 5)]),
        ("ij->ji", [(2, 3)]),
        ("ij->j", [(2, 3)]),
        ("i,j->ij", [(2,), (3,)]),
        ("bij,bij->b", [(2, 3, 4), (2, 3, 4)]),
        ("...ij,...jk->...ik", [(2, 5, 3, 4), (2, 5, 4, 2)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("bn,anm,bm->ba", [(2, 5), (3, 5, 3), (2, 3)]),
        ("bc,bchw->bhw", [(2, 3), (2, 3, 4, 5)]),
    ],
)
def test_einstein_sums_become_products(equation: str, shapes: list[tuple[int, ...]]) -> None:
    tensors = [floats(*shape, seed=index) for index, shape in enumerate(shapes)]
    check_traced(lambda *inputs: torch.einsum(equation, *inputs), *tensors)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2, 3]))
    sizes = st.integers(1, 3)
    kernel, stride, dilation = (data.draw(st.tuples(sizes, sizes)) for _ in range(3))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    bias = data.draw(st.booleans())
    if data.draw(st.booleans()):
        layer = nn.Conv2d(6, 12, kernel, stride, padding, dilation, groups, bias)
    else:
        extra = tuple(min(s, d) - 1 for s, d in zip(stride, dilation, strict=True))
        layer = nn.ConvTranspose2d(6, 12, kernel, stride, padding, extra, groups, bias, dilation)
    check_traced(layer, floats(*IMAGE), tolerance=2e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_poolings(data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil = data.draw(st.booleans())
    if data.draw(st.booleans()):
        layer = nn.MaxPool2d(kernel, stride, padding, data.draw(st.integers(1, 2)), ceil_mode=ceil)
    else:
        layer = nn.AvgPool2d(kernel, stride, padding, ceil, data.draw(st.booleans()))
    check_traced(layer, floats(*IMAGE))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_resizing(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["nearest", "bilinear", "bicubic", "nearest-exact"]))
    wishes: dict[str, Any] = {"mode": mode}
    if data.draw(st.booleans()):
        wishes["size"] = (data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20)))
    else:
        wishes["scale_factor"] = data.draw(st.sampled_from([0.5, 1.3, 1.5, 2, 3]))
        wishes["recompute_scale_factor"] = data.draw(st.sampled_from([None, True]))
    if not mode.startswith("nearest"):
        wishes["align_corners"] = data.draw(st.booleans())
    check_traced(lambda x: F.interpolate(x, **wishes), floats(1, 2, 9, 8), tolerance=5e-5)


def test_resizing_that_averages() -> None:
    check_traced(lambda x: F.interpolate(x, size=(5, 4), mode="bilinear", antialias=True), floats(*IMAGE))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
def test_recurrent_layers(kind: str, layers: int, both: bool) -> None:
    torch.manual_seed(0)
    layer = getattr(nn, kind)(4, 5, layers, bidirectional=both, batch_first=both, bias=layers == 2)
    check_traced(layer, floats(3, 2, 4))


def test_attention() -> None:
    mask = torch.tril(torch.ones(5, 5)).bool()

    def attend(x: Any) -> Any:
        return (
            F.scaled_dot_product_attention(x, x, x),
            F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3),
            F.scaled_dot_product_attention(x, x, x, attn_mask=mask),
            F.scaled_dot_product_attention(x, x, x, attn_mask=mask.float()),
        )

    check_traced(attend, floats(1, 2, 5, 4))


class Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.inner, self.weights = nn.MultiheadAttention(8, 2, batch_first=True), weights

    def forward(self, x: Any) -> Any:
        result, weights = self.inner(x, x, x, need_weights=self.weights)
        return (result, weights) if self.weights else result


@pytest.mark.parametrize("weights", [False, True])
def test_attention_of_several_heads(weights: bool) -> None:
    check_traced(Attention(weights), floats(2, 5, 8))


def test_embeddings_take_whole_numbers() -> None:
    model = check_traced(nn.Embedding(10, 4), torch.tensor([[1, 2], [3, 4]]))
    assert model.graph.inputs[0].dtype.name == "INT64"


def test_sampling_by_a_grid() -> None:
    grid = floats(2, 5, 4, 2).clamp(-1.2, 1.2)
    check_traced(lambda x, g: F.grid_sample(x, g, align_corners=False), floats(*IMAGE), grid)
    check_traced(lambda theta: F.affine_grid(theta, [1, 3, 4, 5], align_corners=False), floats(1, 2, 3))
