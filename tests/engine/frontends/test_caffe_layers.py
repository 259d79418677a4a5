"""Caffe layers compute what OpenCV makes of them; where that differs from Caffe, what Caffe's documents say."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_models import IMAGE, Array, assert_as_opencv, feeds_of, floats, layer, ours
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ModelError, UnsupportedOperator
from engine.frontends import caffe

pytest.importorskip("cv2", reason="OpenCV below 5 is the oracle")
few = settings(max_examples=15, derandomize=True, deadline=None)
many = settings(max_examples=250, derandomize=True, deadline=None)
TWO = {"x": (1, 4, 7, 9), "z": (1, 4, 7, 9)}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def _windows(draw: st.DrawFn) -> dict[str, int]:
    kernel = [draw(st.integers(1, 4)) for _ in "hw"]
    return {
        **dict(zip(("kernel_h", "kernel_w"), kernel, strict=True)),
        **{f"pad_{side}": draw(st.integers(0, size - 1)) for side, size in zip("hw", kernel, strict=True)},
        **{f"stride_{side}": draw(st.integers(1, 3)) for side in "hw"},
    }


def _text(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}: {value}" for name, value in fields.items())


def _convolution(folder: Path, window: dict[str, int], group: int, dilation: int, bias: bool, shape: list[int]) -> None:
    kernel = [window["kernel_h"], window["kernel_w"]]
    param = f"num_output: 6 group: {group} dilation: {dilation} bias_term: {str(bias).lower()} {_text(window)}"
    weights = [floats(6, 4 // group, *kernel), *([floats(6)] if bias else [])]
    layers = layer("Convolution", f"convolution_param {{ {param} }}")
    if any(s + 2 * window[f"pad_{a}"] < (k - 1) * dilation + 1 for s, k, a in zip(shape, kernel, "hw", strict=True)):
        with pytest.raises(ModelError, match="y"):
            ours(folder, layers, {"y": weights}, {"x": (1, 4, *shape)})
        return
    assert_as_opencv(folder, layers, {"y": weights}, {"x": (1, 4, *shape)})


_CONVOLUTIONS = (_windows(), st.sampled_from([1, 2]), st.integers(1, 2), st.booleans())
_SIZES = st.lists(st.integers(5, 9), min_size=2, max_size=2)


@few
@given(*_CONVOLUTIONS, _SIZES)
def test_convolutions(
    folder: Path, window: dict[str, int], group: int, dilation: int, bias: bool, shape: list[int]
) -> None:
    _convolution(folder, window, group, dilation, bias, shape)


@pytest.mark.slow
@many
@given(*_CONVOLUTIONS, _SIZES)
def test_many_convolutions(
    folder: Path, window: dict[str, int], group: int, dilation: int, bias: bool, shape: list[int]
) -> None:
    _convolution(folder, window, group, dilation, bias, shape)


@few
@given(_windows(), st.sampled_from([1, 2]), st.booleans())
def test_deconvolutions(folder: Path, window: dict[str, int], group: int, bias: bool) -> None:
    kernel = (window["kernel_h"], window["kernel_w"])
    param = f"num_output: 6 group: {group} bias_term: {str(bias).lower()} {_text(window)}"
    weights = [floats(4, 6 // group, *kernel), *([floats(6)] if bias else [])]
    assert_as_opencv(folder, layer("Deconvolution", f"convolution_param {{ {param} }}"), {"y": weights})


def test_a_dilated_deconvolution_is_as_large_as_the_dilated_window_makes_it(folder: Path) -> None:
    # OpenCV leaves the dilation out of the size.
    param = "convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 dilation: 2 bias_term: false }"
    found = ours(folder, layer("Deconvolution", param), {"y": [floats(4, 6, 3, 3)]})
    assert found["y"].shape == (1, 6, 15, 19)


def test_one_layer_convolves_several_blobs_with_the_same_weights(folder: Path) -> None:
    weights = [floats(6, 4, 3, 3), floats(6)]
    param = "convolution_param { num_output: 6 kernel_size: 3 }"
    found = ours(folder, layer("Convolution", param, "x z", "y v", name="c"), {"c": weights}, TWO)
    alone = ours(folder, layer("Convolution", param, "z", "v"), {"v": weights}, TWO, feeds_of(TWO))
    np.testing.assert_array_equal(found["v"], alone["v"])
    assert found["y"].shape == (1, 6, 5, 7)


@pytest.mark.parametrize("kind", ["ConvolutionDepthwise", "DepthwiseConvolution"])
def test_depthwise_layers_have_a_group_for_each_channel(folder: Path, kind: str) -> None:
    weights = {"y": [floats(4, 1, 3, 3), floats(4)]}
    found = ours(folder, layer(kind, "convolution_param { num_output: 4 kernel_size: 3 }"), weights)
    grouped = "convolution_param { num_output: 4 kernel_size: 3 group: 4 }"
    np.testing.assert_array_equal(found["y"], assert_as_opencv(folder, layer("Convolution", grouped), weights)["y"])


def _pooling(folder: Path, method: str, window: dict[str, int], ceil: bool, shape: list[int]) -> None:
    text = f"pooling_param {{ pool: {method} {_text(window)} %s }}"
    sides = [
        (size, *(window[f"{n}_{side}"] for n in ("kernel", "pad", "stride")))
        for side, size in zip("hw", shape, strict=True)
    ]
    counts = [
        (math.ceil if ceil else math.floor)((size + 2 * pad - kernel) / stride) + 1
        for size, kernel, pad, stride in sides
    ]
    beside = [(count - 1) * side[3] >= side[0] + side[2] for count, side in zip(counts, sides, strict=True)]
    padded = [bool(side[2]) for side in sides]
    if any(beside) and not any(padded):
        with pytest.raises(UnsupportedOperator, match="beside the picture"):
            ours(folder, layer("Pooling", text % f"ceil_mode: {str(ceil).lower()}"), inputs={"x": (1, 2, *shape)})
        return
    if any(one and not own for one, own in zip(beside, padded, strict=True)):
        # Where one axis is padded, Caffe leaves out windows beside the picture along both; OpenCV along that one.
        found = ours(folder, layer("Pooling", text % ""), inputs={"x": (1, 2, *shape)})
        assert found["y"].shape[2:] == tuple(count - over for count, over in zip(counts, beside, strict=True))
        return
    # OpenCV calls ceil_mode what Caffe calls round_mode.
    found = assert_as_opencv(
        folder, layer("Pooling", text % f"ceil_mode: {str(ceil).lower()}"), None, {"x": (1, 2, *shape)}
    )
    named = ours(
        folder, layer("Pooling", text % f"round_mode: {'CEIL' if ceil else 'FLOOR'}"), None, {"x": (1, 2, *shape)}
    )
    np.testing.assert_array_equal(found["y"], named["y"])


_POOLINGS = (st.sampled_from(["MAX", "AVE"]), _windows(), st.booleans(), _SIZES)


@few
@given(*_POOLINGS)
def test_poolings(folder: Path, method: str, window: dict[str, int], ceil: bool, shape: list[int]) -> None:
    _pooling(folder, method, window, ceil, shape)


@pytest.mark.slow
@many
@given(*_POOLINGS)
def test_many_poolings(folder: Path, method: str, window: dict[str, int], ceil: bool, shape: list[int]) -> None:
    _pooling(folder, method, window, ceil, shape)


def test_an_average_counts_padding_but_nothing_beyond_it(folder: Path) -> None:
    ones = {"x": np.ones((1, 1, 4, 4), np.float32)}
    param = "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"
    found = ours(folder, layer("Pooling", param), None, {"x": (1, 1, 4, 4)}, ones)["y"]
    np.testing.assert_allclose(found[0, 0], np.outer([2 / 3, 1, 1 / 2], [2 / 3, 1, 1 / 2]), rtol=1e-6)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_a_global_pooling_takes_all_of_the_picture(folder: Path, method: str) -> None:
    assert_as_opencv(folder, layer("Pooling", f"pooling_param {{ pool: {method} global_pooling: true }}"))


def test_a_pyramid_pools_finer_and_finer(folder: Path) -> None:
    feeds = feeds_of(IMAGE)
    found = ours(folder, layer("SPP", "spp_param { pyramid_height: 2 pool: MAX }"), None, IMAGE, feeds)["y"]
    x = feeds["x"]
    # 7 x 9 in windows of 4 x 5 that begin one before the picture.
    quarters = [x[:, :, a, b].max((2, 3)) for a in (slice(0, 3), slice(3, 7)) for b in (slice(0, 4), slice(4, 9))]
    np.testing.assert_array_equal(found, np.concatenate([x.max((2, 3)), np.stack(quarters, 2).reshape(1, -1)], 1))


@few
@given(st.integers(1, 3), st.booleans())
def test_inner_products(folder: Path, axis: int, bias: bool) -> None:
    length = math.prod(IMAGE["x"][axis:])
    weights = {"y": [floats(5, length), *([floats(5)] if bias else [])]}
    param = f"inner_product_param {{ num_output: 5 axis: {axis} bias_term: {str(bias).lower()} }}"
    found = assert_as_opencv(folder, layer("InnerProduct", param), weights)
    # OpenCV reads transposed weights as if they were not.
    turned = {"y": [weights["y"][0].T.copy(), *weights["y"][1:]]}
    again = ours(folder, layer("InnerProduct", param.replace("axis", "transpose: true axis")), turned)
    np.testing.assert_array_equal(found["y"], again["y"])


_AGREED = {
    "LRN": "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 }",
    "LRN within": "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 norm_region: WITHIN_CHANNEL }",
    "MVN": "",
    "MVN across": "mvn_param { across_channels: true }",
    "MVN mean": "mvn_param { normalize_variance: false }",
    "ReLU": "",
    "ReLU leaky": "relu_param { negative_slope: 0.1 }",
    "ReLU6": "",
    "ELU": "",
    "AbsVal": "",
    "BNLL": "",
    "Sigmoid": "",
    "TanH": "",
    "Swish": "",
    "Mish": "",
    "HardSwish": "",
    "Power": "power_param { power: 3 scale: 0.5 shift: 0.25 }",
    "Power square": "power_param { power: 2 scale: 0.5 shift: 0.25 }",
    "Power line": "power_param { scale: 0.5 shift: 0.25 }",
    "Exp": "exp_param { base: 2 scale: 0.5 shift: 1 }",
    "Permute": "permute_param { order: 0 order: 2 order: 3 order: 1 }",
    "Flatten": "",
    "Flatten some": "flatten_param { axis: 1 end_axis: 2 }",
    "Reshape": "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 9 } }",
    "Reshape span": "reshape_param { shape { dim: 3 dim: 3 } axis: 3 }",
    "Softmax": "",
    "Softmax axis": "softmax_param { axis: 2 }",
    "ShuffleChannel": "shuffle_channel_param { group: 2 }",
    "Interp": "interp_param { height: 13 width: 17 }",
    "Interp zoom": "interp_param { zoom_factor: 2 }",
}


@pytest.mark.parametrize("case", _AGREED)
def test_layers_without_weights(folder: Path, case: str) -> None:
    assert_as_opencv(folder, layer(case.split()[0], _AGREED[case]))


_WEIGHED: dict[str, tuple[str, list[Array]]] = {
    "BatchNorm": ("batch_norm_param { eps: 0.001 }", [floats(4), np.abs(floats(4)) + 0.1, floats(1)]),
    "BatchNorm own": ("batch_norm_param { use_global_stats: false }", [floats(4), floats(4), floats(1)]),
    "Scale": ("scale_param { bias_term: true }", [floats(4), floats(4)]),
    "Scale rows": ("scale_param { axis: 2 }", [floats(7)]),
    "Scale all": ("scale_param { num_axes: -1 }", [floats(4, 7, 9)]),
    "PReLU": ("", [floats(4)]),
    "PReLU shared": ("prelu_param { channel_shared: true }", [floats(1)]),
    "Normalize": ("norm_param { across_spatial: false channel_shared: false }", [floats(4)]),
    "Normalize all": ("norm_param { channel_shared: true }", [floats(1)]),
    "Normalize eps": ("norm_param { across_spatial: false eps: 0.1 }", [floats(1)]),
}


@pytest.mark.parametrize("case", _WEIGHED)
def test_layers_with_weights(folder: Path, case: str) -> None:
    param, weights = _WEIGHED[case]
    assert_as_opencv(folder, layer(case.split()[0], param), {"y": weights})


@pytest.mark.parametrize(
    "param", ["", "coeff: 1 coeff: -1", "coeff: 0.5 coeff: 2", "operation: PROD", "operation: MAX", "operation: 2"]
)
def test_blobs_are_joined_number_by_number(folder: Path, param: str) -> None:
    assert_as_opencv(folder, layer("Eltwise", f"eltwise_param {{ {param} }}", "x z"), None, TWO)


def test_blobs_are_joined_and_cut_along_an_axis(folder: Path) -> None:
    assert_as_opencv(
        folder, layer("Concat", "concat_param { axis: 2 }", "x z"), None, {"x": (1, 2, 3, 4), "z": (1, 2, 5, 4)}
    )
    assert_as_opencv(folder, layer("Concat", "concat_param { concat_dim: 1 }", "x z"), None, TWO)
    parts = "".join(layer("ReLU", "", part, f"{part}{part}") for part in "abc")  # OpenCV shows a layer's first top only
    cut = layer("Slice", "slice_param { axis: 2 slice_point: 2 slice_point: 5 }", "x", "a b c", name="cut")
    assert_as_opencv(folder, cut + parts)
    equal = layer("Slice", "slice_param { slice_dim: 2 }", "x", "a b c", name="cut")
    inputs = {"x": (1, 2, 6, 4)}
    found = ours(folder, equal, None, inputs)
    np.testing.assert_array_equal(np.concatenate([found[name] for name in "abc"], 2), feeds_of(inputs)["x"])


def test_crops(folder: Path) -> None:
    inputs = {"x": (1, 4, 7, 9), "z": (1, 2, 3, 4)}
    read = layer("ReLU", "", "z", "seen")  # OpenCV wants every input read
    assert_as_opencv(folder, layer("Crop", "crop_param { offset: 1 offset: 2 }", "x z") + read, None, inputs)
    found = ours(folder, layer("Crop", "crop_param { axis: 1 offset: 2 }", "x z"), None, inputs)["y"]
    np.testing.assert_array_equal(found, feeds_of(inputs)["x"][:, 2:4, 2:5, 2:6])


@few
@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "step: 16", "step_h: 20 step_w: 10"]),
    st.sampled_from([0.5, 0.25]),
    st.sampled_from(["variance: 0.2", "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.3"]),
)
def test_prior_boxes(
    folder: Path, largest: bool, flip: bool, clip: bool, step: str, offset: float, variance: str
) -> None:
    param = "min_size: 30 aspect_ratio: 2 aspect_ratio: 3 aspect_ratio: 2 " + ("max_size: 60 " if largest else "")
    param += f"flip: {str(flip).lower()} clip: {str(clip).lower()} {step} offset: {offset} {variance}"
    inputs = {"x": (1, 3, 90, 60), "f": (1, 4, 3, 2)}
    reads = layer("ReLU", "", "x", "seen") + layer("ReLU", "", "f", "seen_too")
    assert_as_opencv(folder, layer("PriorBox", f"prior_box_param {{ {param} }}", "f x") + reads, None, inputs)


def _alone(
    folder: Path, kind: str, param: str = "", weights: Sequence[Array] = (), **shapes: Sequence[int]
) -> tuple[Array, ...]:
    """The result of one layer, then what it was fed."""
    inputs = shapes or IMAGE
    feeds = feeds_of(inputs)
    text = layer(kind, param, " ".join(inputs))
    found = ours(folder, text, {"y": list(weights)} if len(weights) else None, inputs, feeds)
    return (found["y"], *feeds.values())


def test_layers_that_opencv_lacks_or_reads_otherwise(folder: Path) -> None:
    close = np.testing.assert_allclose
    # OpenCV takes k as 1, the logarithm without its parameters, eps inside the root.
    y, x = _alone(folder, "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }")
    padded = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    close(y, x / (2 + 0.5 / 3 * (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:])) ** 0.6, rtol=1e-5)
    y, x = _alone(folder, "Log", "log_param { base: 2 scale: 0.5 shift: 4 }")
    close(y, np.log2(4 + 0.5 * x), rtol=1e-5)
    y, x = _alone(folder, "MVN", "mvn_param { eps: 0.1 }")
    close(y, (x - x.mean((2, 3), keepdims=True)) / (x.std((2, 3), keepdims=True) + 0.1), rtol=1e-4, atol=1e-5)
    # SENet's fork has F = a X + Y for the bottoms a, X, Y; OpenCV multiplies the third.
    y, a, x, z = _alone(folder, "Axpy", a=(1, 4), x=(1, 4, 2, 3), z=(1, 4, 2, 3))
    close(y, a[:, :, None, None] * x + z, rtol=1e-5, atol=1e-6)
    own = [floats(4), floats(4), floats(4), np.abs(floats(4)) + 0.1]
    y, x = _alone(folder, "BN", "bn_param { eps: 0.001 }", own)
    scale, bias, mean, variance = (array[:, None, None] for array in own)
    close(y, scale * (x - mean) / np.sqrt(variance + 1e-3) + bias, rtol=1e-4, atol=1e-5)
    y, x = _alone(folder, "BN", "bn_param { bn_mode: INFERENCE }", own[:2])
    close(y, scale * x + bias, rtol=1e-4, atol=1e-5)
    y, x = _alone(folder, "Bias", "", own[:1])
    close(y, x + scale)
    y, x = _alone(folder, "Clip", "clip_param { min: -1 max: 0.5 }")
    close(y, x.clip(-1, 0.5))
    y, x = _alone(folder, "HSigmoid")
    close(y, (x / 6 + 0.5).clip(0, 1), rtol=1e-5)
    y, x = _alone(folder, "Threshold", "threshold_param { threshold: 0.2 }")
    close(y, x > 0.2)
    y, x = _alone(folder, "Tile", "tile_param { axis: 2 tiles: 3 }")
    close(y, np.tile(x, (1, 1, 3, 1)))
    y, x = _alone(folder, "Upsample", "upsample_param { scale: 2 }")
    close(y, x.repeat(2, 2).repeat(2, 3))
    y, x = _alone(folder, "Interp", "interp_param { shrink_factor: 2 pad_end: -1 }")
    close(
        y,
        _corners(x[:, :, :6, :8], 3, 4),
        rtol=1e-4,
        atol=1e-5,
    )
    y, a, x = _alone(folder, "MatMul", a=(1, 2, 3), x=(1, 3, 4))
    close(y, a @ x, rtol=1e-5)


def _corners(x: Array, height: int, width: int) -> Array:
    """Linear between the corners, which stay."""
    for axis, size in ((2, height), (3, width)):
        at = np.linspace(0, x.shape[axis] - 1, size)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.take(low, axis) * (1 - part) + x.take(high, axis) * part
    return x


@pytest.mark.parametrize("operation", ["SUM", "ASUM", "SUMSQ", "MEAN"])
def test_reductions(folder: Path, operation: str) -> None:
    y, x = _alone(folder, "Reduction", f"reduction_param {{ axis: 2 operation: {operation} coeff: 2 }}")
    flat = x.reshape(1, 4, -1)
    expected = {"SUM": flat.sum(2), "ASUM": np.abs(flat).sum(2), "SUMSQ": (flat**2).sum(2), "MEAN": flat.mean(2)}
    np.testing.assert_allclose(y, 2 * expected[operation], rtol=1e-4, atol=1e-5)


def test_a_scale_may_come_from_a_blob(folder: Path) -> None:
    inputs = {"x": (1, 4, 7, 9), "s": (1, 4)}
    assert_as_opencv(folder, layer("Scale", "scale_param { axis: 0 }", "x s"), None, inputs)
    y, x, s = _alone(folder, "Bias", "bias_param { axis: 0 }", x=(1, 4, 7, 9), s=(1, 4))
    np.testing.assert_array_equal(y, x + s[:, :, None, None])


def test_the_largest_numbers_are_found(folder: Path) -> None:
    y, x = _alone(folder, "ArgMax", "argmax_param { axis: 1 }")
    np.testing.assert_array_equal(y, x.argmax(1)[:, None])
    y, x = _alone(folder, "ArgMax", "argmax_param { top_k: 3 out_max_val: true }")
    order = np.argsort(-x.reshape(1, -1))[:, :3]
    np.testing.assert_array_equal(y, np.stack([order, np.take_along_axis(x.reshape(1, -1), order, 1)], 1))
    assert y.dtype == np.float32
    y, x = _alone(folder, "ArgMax", "argmax_param { axis: 2 out_max_val: true top_k: 2 }")
    np.testing.assert_array_equal(y, -np.sort(-x, 2)[:, :, :2])


def test_pixels_go_back_to_where_the_maximum_was(folder: Path) -> None:
    pool = layer("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }", "x", "p mask", name="pool")
    up = layer("Upsample", "upsample_param { scale: 2 }", "p mask", "y")
    inputs = {"x": (1, 2, 6, 8)}
    y, x = ours(folder, pool + up, None, inputs)["y"], feeds_of(inputs)["x"]
    kept = y != 0
    np.testing.assert_array_equal(y[kept], x[kept])
    assert kept.reshape(1, 2, 3, 2, 4, 2).sum((3, 5)).max() == 1


@pytest.mark.parametrize("back", [False, True])
def test_pixels_become_channels_as_in_darknet(folder: Path, back: bool) -> None:
    param = f"reorg_param {{ stride: 2 reverse: {str(back).lower()} }}"
    y, x = _alone(folder, "Reorg", param, x=(1, 8, 4, 6))
    channels, height, width = x.shape[1:]
    flat, expected = x.reshape(-1), np.zeros(x.size, np.float32)
    for k in range(channels):  # Darknet's loop: channel k is a place within cells of 2 x 2, and a large channel
        place, large = divmod(k, channels // 4)
        for row in range(height):
            for column in range(width):
                small = column + width * (row + height * k)
                wide = column * 2 + place % 2 + width * 2 * (row * 2 + place // 2 + height * 2 * large)
                if back:
                    expected[wide] = flat[small]
                else:
                    expected[small] = flat[wide]
    np.testing.assert_array_equal(y.reshape(-1), expected)


def test_regions_are_pooled(folder: Path) -> None:
    inputs = {"x": (1, 2, 8, 8), "r": (1, 5)}
    feeds = {**feeds_of(inputs), "r": np.array([[0, 0, 0, 12, 12]], np.float32)}
    param = "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.25 }"
    found = ours(folder, layer("ROIPooling", param, "x r"), None, inputs, feeds)["y"]
    np.testing.assert_array_equal(found[0], feeds["x"][0, :, :4, :4].reshape(2, 2, 2, 2, 2).max((2, 4)))


def test_words_become_rows_of_a_table(folder: Path) -> None:
    table, bias = floats(5, 3), floats(3)
    feeds = {"x": np.array([[0, 4, 2]], np.float32)}
    param = "embed_param { input_dim: 5 num_output: 3 }"
    found = ours(folder, layer("Embed", param), {"y": [table, bias]}, {"x": (1, 3)}, feeds)["y"]
    np.testing.assert_allclose(found, table[[[0, 4, 2]]] + bias)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def test_a_sequence_begins_anew_where_it_does_not_continue(folder: Path) -> None:
    steps, samples, length, size = 4, 2, 3, 5
    inputs = {"x": (steps, samples, length), "c": (steps, samples), "s": (samples, 2)}
    goes_on = np.array([[0, 0], [1, 1], [0, 1], [1, 1]], np.float32)
    feeds = {**feeds_of(inputs), "c": goes_on}
    own = [floats(4 * size, length), floats(4 * size), floats(4 * size, 2), floats(4 * size, size)]
    param = f"recurrent_param {{ num_output: {size} }}"
    found = ours(folder, layer("LSTM", param, "x c s"), {"y": own}, inputs, feeds)["y"]
    hidden, cell = np.zeros((samples, size)), np.zeros((samples, size))
    for step in range(steps):
        kept = goes_on[step][:, None]
        gates = feeds["x"][step] @ own[0].T + own[1] + feeds["s"] @ own[2].T + (kept * hidden) @ own[3].T
        entry, forget, exit_, new = np.split(gates, 4, 1)
        cell = kept * _sigmoid(forget) * cell + _sigmoid(entry) * np.tanh(new)
        hidden = _sigmoid(exit_) * np.tanh(cell)
        np.testing.assert_allclose(found[step], hidden, rtol=1e-4, atol=1e-5)
    plain = [floats(size, length), floats(size), floats(size, size), floats(size, size), floats(size)]
    found = ours(folder, layer("RNN", param, "x c"), {"y": plain}, {n: inputs[n] for n in "xc"}, feeds)["y"]
    hidden = np.zeros((samples, size))
    for step in range(steps):
        kept = goes_on[step][:, None]
        hidden = np.tanh((kept * hidden) @ plain[2].T + feeds["x"][step] @ plain[0].T + plain[1])
        np.testing.assert_allclose(found[step], np.tanh(hidden @ plain[3].T + plain[4]), rtol=1e-4, atol=1e-5)


def test_a_learnt_blob_is_a_constant(folder: Path) -> None:
    learnt = layer("Parameter", "parameter_param { shape { dim: 1 dim: 4 dim: 7 dim: 9 } }", "", "p")
    found = ours(folder, learnt + layer("Eltwise", "", "x p"), {"p": [floats(1, 4, 7, 9)]})["y"]
    np.testing.assert_array_equal(found, feeds_of(IMAGE)["x"] + floats(1, 4, 7, 9))


def test_operators_are_listed_with_what_they_become() -> None:
    listed = caffe.operators()
    assert listed["Convolution"] == ("Conv",)
    assert listed["SoftmaxWithLoss"] == ("Softmax",)
    assert listed["Input"] == ()
    assert list(listed) == sorted(listed)
