"""Single layers of Darknet compute what OpenCV computes, or what Darknet's formulas say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.frontends.darknet.activations import ACTIVATIONS
from tests.engine.frontends.darknet_models import (
    Array,
    Layer,
    cfg,
    image,
    loaded,
    normalized,
    numbers,
    run,
    run_opencv,
    weights,
)

cv2 = pytest.importorskip("cv2", reason="OpenCV, which reads Darknet networks up to version 4, is not installed")
needs_darknet = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromDarknet"), reason="this OpenCV reads no Darknet networks; version 4 does"
)

quickly = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
thoroughly = settings(quickly, max_examples=150)

Size = tuple[int, int, int]


def assert_as_opencv(folder: Path, layers: list[Layer], *parts: Array, size: Size = (3, 8, 8)) -> None:
    x = image(size)
    (found,) = run(loaded(folder, layers, *parts, size=size), x)
    expected = run_opencv(cfg(layers, size), weights(*parts), x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[Layer], list[Array], Size]:
    groups, size = draw(st.sampled_from((1, 1, 2, 4))), draw(st.integers(1, 5))
    inside, outside = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, filters = inside * groups, outside * groups
    batch = draw(st.booleans())
    options: dict[str, object] = {"batch_normalize": 1} if batch else {}
    options.update(filters=filters, size=size, stride=draw(st.integers(1, 3)))
    if groups > 1:
        options["groups"] = groups
    options.update(draw(st.sampled_from(({}, {"pad": 1}, {"padding": 1}, {"padding": 2}, {"pad": 1, "padding": 3}))))
    options["activation"] = draw(st.sampled_from(("linear", "leaky", "relu", "logistic", "mish", "swish", "tanh")))
    # OpenCV keeps but one length where the first layer changes it.
    length = draw(st.integers(5, 11))
    parts = [normalized(filters) if batch else numbers(filters), numbers(filters * inside * size * size, 1)]
    return [("convolutional", options)], parts, (channels, length, length + draw(st.integers(0, 3)))


@needs_darknet
@quickly
@given(convolutions())
def test_convolutions(tmp_path: Path, made: tuple[list[Layer], list[Array], Size]) -> None:
    layers, parts, size = made
    assert_as_opencv(tmp_path, layers, *parts, size=size)


@needs_darknet
@pytest.mark.slow
@thoroughly
@given(convolutions())
def test_many_convolutions(tmp_path: Path, made: tuple[list[Layer], list[Array], Size]) -> None:
    layers, parts, size = made
    assert_as_opencv(tmp_path, layers, *parts, size=size)


@needs_darknet
@quickly
@given(st.integers(1, 5), st.integers(1, 4), st.none() | st.integers(0, 5), st.integers(5, 11), st.integers(5, 11))
def test_pools_of_the_largest(
    tmp_path: Path, size: int, stride: int, padding: int | None, height: int, width: int
) -> None:
    # OpenCV wants more than half of a window inside.
    assume(padding is None or padding < size)
    options = {"size": size, "stride": stride, **({} if padding is None else {"padding": padding})}
    assert_as_opencv(tmp_path, [("maxpool", options)], size=(2, height, width))


@needs_darknet
@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ([("avgpool", {}), ("softmax", {"groups": 1})], (5, 4, 6)),
        ([("upsample", {"stride": 2})], (2, 3, 4)),
        ([("upsample", {"stride": 3})], (2, 3, 4)),
        ([("reorg", {"stride": 2})], (4, 6, 8)),
        ([("reorg", {"stride": 2})], (64, 4, 4)),
        ([("reorg", {"stride": 3})], (9, 6, 9)),
        ([("maxpool", {"size": 2, "stride": 2}), ("dropout", {"probability": 0.5}), ("cost", {})], (2, 4, 4)),
        ([("upsample", {"stride": 2}), ("maxpool", {"size": 2, "stride": 2}), ("route", {"layers": "0"})], (2, 4, 4)),
        ([("maxpool", {"size": 3, "stride": 1}), ("route", {"layers": -1, "groups": 2, "group_id": 1})], (6, 4, 4)),
        (
            [
                ("maxpool", {"size": 3, "stride": 1}),
                ("maxpool", {"size": 5, "stride": 1}),
                ("route", {"layers": "-1, -2,0"}),
            ],
            (3, 6, 6),
        ),
        (
            [("maxpool", {"size": 3, "stride": 1}), ("dropout", {}), ("shortcut", {"from": -2, "activation": "leaky"})],
            (3, 6, 6),
        ),
    ],
)
def test_layers_without_weights(tmp_path: Path, layers: list[Layer], size: Size) -> None:
    assert_as_opencv(tmp_path, layers, size=size)


@needs_darknet
@pytest.mark.parametrize(("first", "second"), [(4, 4), (6, 4), (4, 6)])
def test_shortcuts_of_more_and_fewer_channels(tmp_path: Path, first: int, second: int) -> None:
    layers: list[Layer] = [
        ("convolutional", {"filters": first, "size": 1, "activation": "leaky"}),
        ("convolutional", {"filters": second, "size": 1, "activation": "leaky"}),
        ("shortcut", {"from": "-2", "activation": "linear"}),
    ]
    parts = [numbers(first), numbers(first * 3, 1), numbers(second, 2), numbers(second * first, 3)]
    assert_as_opencv(tmp_path, layers, *parts)


@needs_darknet
def test_squeeze_and_excitation(tmp_path: Path) -> None:
    layers: list[Layer] = [
        ("maxpool", {"size": 3, "stride": 1}),
        ("avgpool", {}),
        ("convolutional", {"filters": 3, "size": 1, "activation": "logistic"}),
        ("scale_channels", {"from": -3}),
    ]
    assert_as_opencv(tmp_path, layers, numbers(3), numbers(9, 1))


@needs_darknet
@pytest.mark.parametrize("pooled", [False, True])
def test_connected_layers(tmp_path: Path, pooled: bool) -> None:
    layers: list[Layer] = [("maxpool", {"size": 2, "stride": 2})] if pooled else []
    layers += [("connected", {"output": 5, "activation": "leaky"}), ("softmax", {})]
    assert_as_opencv(tmp_path, layers, numbers(5), numbers(5 * 3 * (16 if pooled else 64), 1))


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Layer], list[Array]]:
    """Layers that read any of those before them, for an image of 4 channels and 8x8 points."""
    layers: list[Layer] = []
    parts: list[Array] = []
    shapes: list[Size] = []
    shape: Size = (4, 8, 8)

    def add(kind: str, made: Size, **options: object) -> None:
        nonlocal shape
        layers.append((kind, options))
        shapes.append(made)
        shape = made

    for _ in range(draw(st.integers(3, 10))):
        number = len(layers)
        channels, height, width = shape
        kinds = ["convolutional", "convolutional", "maxpool", "upsample"]
        if number:
            kinds += ["route", "group", "shortcut", "dropout", "reorg", "squeeze"]
        kind = draw(st.sampled_from(kinds))
        alike = [index for index, other in enumerate(shapes) if other[1:] == shape[1:]]
        relative = draw(st.booleans())
        if kind == "convolutional":
            filters, size, stride = (
                draw(st.sampled_from((2, 4, 8))),
                draw(st.sampled_from((1, 3))),
                draw(st.integers(1, 2)),
            )
            batch = draw(st.booleans())
            parts += [normalized(filters, number) if batch else numbers(filters, number)]
            parts += [numbers(filters * channels * size * size, number + 50)]
            lengths = ((length - 1) // stride + 1 for length in (height, width))
            options = {"batch_normalize": 1} if batch else {}
            kinds = ["linear", "leaky", "relu", "logistic", "mish", "swish"]
            options = {**options, "filters": filters, "size": size, "stride": stride, "pad": 1}
            add(kind, (filters, *lengths), **options, activation=draw(st.sampled_from(kinds)))  # type: ignore[arg-type]
        elif kind == "maxpool":
            size, stride = draw(st.integers(2, 3)), draw(st.integers(1, 2))
            add(kind, (channels, (height - 1) // stride + 1, (width - 1) // stride + 1), size=size, stride=stride)
        elif kind == "upsample" and height <= 8:
            add(kind, (channels, height * 2, width * 2), stride=2)
        elif kind == "route":
            chosen = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3, unique=True))
            total = sum(shapes[index][0] for index in chosen)
            text = ",".join(str(index - number if relative else index) for index in chosen)
            add(kind, (total, *shape[1:]), layers=text)
        elif kind == "group" and channels % 2 == 0:
            group = draw(st.integers(0, 1))
            add("route", (channels // 2, *shape[1:]), layers=-1, groups=2, group_id=group)
        elif kind == "shortcut":
            index = draw(st.sampled_from(alike))
            add(
                kind,
                shape,
                **{"from": index - number if relative else index},
                activation=draw(st.sampled_from(("linear", "leaky"))),
            )
        elif kind == "reorg" and channels % 4 == 0 and height % 2 == 0:
            add(kind, (channels * 4, height // 2, width // 2), stride=2)
        elif kind == "squeeze":
            add("avgpool", (channels, 1, 1))
            add("scale_channels", (channels, height, width), **{"from": -2})
        else:
            add("dropout" if number else "maxpool", shape, **({} if number else {"size": 1, "stride": 1}))
    return layers, parts


@needs_darknet
@quickly
@given(networks())
def test_networks(tmp_path: Path, made: tuple[list[Layer], list[Array]]) -> None:
    layers, parts = made
    assert_as_opencv(tmp_path, layers, *parts, size=(4, 8, 8))


@needs_darknet
@pytest.mark.slow
@thoroughly
@given(networks())
def test_many_networks(tmp_path: Path, made: tuple[list[Layer], list[Array]]) -> None:
    layers, parts = made
    assert_as_opencv(tmp_path, layers, *parts, size=(4, 8, 8))


def single(folder: Path, layer: Layer, *parts: Array, size: Size = (3, 8, 8)) -> Array:
    (found,) = run(loaded(folder, [layer], *parts, size=size), image(size))
    return found


def test_connected_layers_are_normalized_by_what_stands_behind_their_weights(tmp_path: Path) -> None:
    bias, matrix, rest = numbers(5), numbers(5 * 12, 1).reshape(5, 12), normalized(5)
    scale, mean, variance = rest[5:10], rest[10:15], rest[15:]
    options = {"output": 5, "batch_normalize": 1, "activation": "linear"}
    found = single(tmp_path, ("connected", options), bias, matrix, scale, mean, variance, size=(3, 2, 2))
    product = image((3, 2, 2)).reshape(1, 12) @ matrix.T
    np.testing.assert_allclose(found, scale * (product - mean) / np.sqrt(variance + 1e-6) + bias, atol=1e-5)


def shares(x: Array) -> Array:
    return x / (x.sum(1, keepdims=True) + 1e-4)  # type: ignore[no-any-return]


def stair(x: Array) -> Array:
    n = np.floor(x)
    return np.where(n % 2 == 0, np.floor(x / 2), x - n + np.floor(x / 2))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))  # type: ignore[no-any-return]


FORMULAS = {
    "linear": lambda x: x,
    "logistic": sigmoid,
    "loggy": lambda x: 2 * sigmoid(x) - 1,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "relie": lambda x: np.where(x > 0, x, 0.01 * x),
    "ramp": lambda x: np.maximum(x, 0) + 0.1 * x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x >= 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507 * np.where(x >= 0, x, 1.6732 * np.expm1(x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "plse": lambda x: np.where(x < -4, 0.01 * (x + 4), np.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5)),
    "stair": stair,
    "hardtan": lambda x: np.clip(x, -1, 1),
    "lhtan": lambda x: np.where(x < 0, 0.001 * x, np.where(x > 1, 0.001 * (x - 1) + 1, x)),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "normalize_channels": lambda x: shares(np.maximum(x, 0)),
    "norm_channels": lambda x: shares(np.maximum(x, 0)),
    "normalize_channels_softmax": lambda x: shares(np.exp(x)),
    "normalize_channels_softmax_maxval": lambda x: shares(np.exp(x - x.max(1, keepdims=True))),
}
"""As in Darknet's source."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(tmp_path: Path, name: str) -> None:
    x = image((4, 16, 16)) * 4
    model = loaded(tmp_path, [("activation", {"activation": name}), ("maxpool", {"size": 1})], size=(4, 16, 16))
    np.testing.assert_allclose(run(model, x)[0], FORMULAS[name](x.astype(np.float64)), atol=2e-5)


def test_a_convolution_without_activation_is_logistic(tmp_path: Path) -> None:
    found = single(tmp_path, ("convolutional", {"filters": 2, "size": 1}), numbers(2), numbers(6, 1))
    assert 0 < found.min() < found.max() < 1


def test_strides_of_their_own_and_dilation(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    bias, kernel, x = numbers(4), numbers(4 * 3 * 9, 1).reshape(4, 3, 3, 3), torch.from_numpy(image((3, 9, 9)))
    options = {"filters": 4, "size": 3, "pad": 1, "activation": "linear"}
    found = single(tmp_path, ("conv", {**options, "stride_x": 2, "stride": 3}), bias, kernel, size=(3, 9, 9))
    expected = torch.conv2d(x, torch.from_numpy(kernel), torch.from_numpy(bias), (3, 2), 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = single(tmp_path, ("conv", {**options, "dilation": 2}), bias, kernel, size=(3, 9, 9))
    expected = torch.conv2d(x, torch.from_numpy(kernel), torch.from_numpy(bias), 1, 2, dilation=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 0)])
def test_deconvolutions(tmp_path: Path, stride: int, padding: int) -> None:
    torch = pytest.importorskip("torch")
    bias, kernel = numbers(4), numbers(3 * 4 * 9, 1).reshape(3, 4, 3, 3)
    options = {"filters": 4, "size": 3, "stride": stride, "padding": padding, "activation": "linear"}
    found = single(tmp_path, ("deconvolutional", options), bias, kernel)
    x, w, b = map(torch.from_numpy, (image(), kernel, bias))
    np.testing.assert_allclose(found, torch.conv_transpose2d(x, w, b, stride, padding), atol=1e-5)


def test_depthwise_layers_have_a_filter_a_channel(tmp_path: Path) -> None:
    options = {"size": 3, "pad": 1, "batch_normalize": 1, "activation": "leaky"}
    parts = normalized(3), numbers(27, 1)
    found = single(tmp_path, ("depthwise_convolutional", options), *parts)
    np.testing.assert_array_equal(found, single(tmp_path, ("conv", {**options, "filters": 3, "groups": 3}), *parts))


def test_means_of_windows_are_of_the_points_inside(tmp_path: Path) -> None:
    found = single(tmp_path, ("local_avgpool", {"size": 3, "stride": 2}), size=(1, 4, 4))[0, 0]
    x = image((1, 4, 4))[0, 0]
    expected = [[x[:2, :2].mean(), x[:2, 1:].mean()], [x[1:, :2].mean(), x[1:, 1:].mean()]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pools_over_channels(tmp_path: Path) -> None:
    found = single(tmp_path, ("maxpool", {"maxpool_depth": 1, "out_channels": 2}), size=(6, 2, 2))
    np.testing.assert_array_equal(found[0, 1], image((6, 2, 2))[0, 1::2].max(0))


def test_blocks_become_channels_and_points_again(tmp_path: Path) -> None:
    x = image((4, 4, 6))
    found = single(tmp_path, ("reorg3d", {"stride": 2}), size=(4, 4, 6))
    assert found.shape == (1, 16, 2, 3)
    np.testing.assert_array_equal(found[0, 6], x[0, 2, ::2, 1::2])
    layers: list[Layer] = [("reorg3d", {"stride": 2}), ("reorg3d", {"stride": 2, "reverse": 1})]
    np.testing.assert_array_equal(run(loaded(tmp_path, layers, size=(4, 4, 6)), x)[0], x)


def test_softmax_in_groups_at_points_and_at_a_temperature(tmp_path: Path) -> None:
    x = image((4, 2, 2)).astype(np.float64)
    e = np.exp(x)
    found = single(tmp_path, ("softmax", {"spatial": 1}), size=(4, 2, 2))
    np.testing.assert_allclose(found, e / e.sum(1, keepdims=True), rtol=1e-5)
    halves = np.exp(x / 2).reshape(2, 8)
    found = single(tmp_path, ("softmax", {"groups": 2, "temperature": 2}), size=(4, 2, 2))
    np.testing.assert_allclose(found.reshape(2, 8), halves / halves.sum(1, keepdims=True), rtol=1e-5)


def test_spatial_attention(tmp_path: Path) -> None:
    layers: list[Layer] = [("maxpool", {"size": 1}), ("activation", {"activation": "logistic"}), ("sam", {"from": -2})]
    x = image()
    np.testing.assert_allclose(run(loaded(tmp_path, layers), x)[0], x * sigmoid(x), rtol=1e-5)
    layers = [
        ("maxpool", {"size": 1}),
        ("conv", {"filters": 1, "activation": "logistic"}),
        ("scale_channels", {"from": 0, "scale_wh": 1}),
    ]
    found = run(loaded(tmp_path, layers, np.zeros(1), np.array([1, 0, 0])), x)[0]
    np.testing.assert_allclose(found, x * sigmoid(x[:, :1]), rtol=1e-5)


def test_upsampling_scales(tmp_path: Path) -> None:
    found = single(tmp_path, ("upsample", {"stride": 2, "scale": 0.5}))
    np.testing.assert_allclose(found, 0.5 * image().repeat(2, 2).repeat(2, 3))


def test_normalization_of_its_own(tmp_path: Path) -> None:
    parts = normalized(3)
    bias, scale, mean, variance = parts.reshape(4, 1, 3, 1, 1)
    expected = scale * (image() - mean) / np.sqrt(variance + 1e-6) + bias
    np.testing.assert_allclose(single(tmp_path, ("batchnorm", {}), parts), expected, atol=1e-5)
