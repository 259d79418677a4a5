"""Nets built as well-known Caffe models are compute what OpenCV makes of them, and go through an int8 build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from caffe_models import Array, assert_as_opencv, floats, layer, net, save

from engine.session import Session

pytest.importorskip("cv2", reason="OpenCV below 5 is the oracle")


class _Writer:
    """Layers with their weights, one behind the other."""

    def __init__(self) -> None:
        self.text = ""
        self.weights: dict[str, list[Array]] = {}

    def add(self, kind: str, param: str, bottoms: str, tops: str, name: str = "") -> str:
        self.text += layer(kind, param, bottoms, tops, name)
        return tops

    def convolve(self, bottom: str, top: str, sizes: tuple[int, int], more: str = "kernel_size: 3 pad: 1") -> str:
        """A convolution with ReLU in place; `sizes`: channels read and made."""
        kernel = int(more.split("kernel_size: ")[1].split()[0])
        group = int(more.split("group: ")[1].split()[0]) if "group" in more else 1
        shape = (sizes[1], sizes[0] // group, kernel, kernel)
        name = f"{top}_conv"
        self.weights[name] = [floats(*shape) * (2 / np.prod(shape[1:])) ** 0.5, floats(sizes[1]) * 0.1]
        self.add("Convolution", f"convolution_param {{ num_output: {sizes[1]} {more} }}", bottom, top, name)
        self.add("ReLU", "", top, top, f"{top}_relu")
        return top

    def normalize(self, blob: str, channels: int) -> None:
        """Batch normalization and scale, in place."""
        own = [floats(channels) * 0.1, np.abs(floats(channels)) + 0.5, np.full(1, 2, np.float32)]
        self.weights[f"{blob}_bn"] = own
        self.weights[f"{blob}_scale"] = [np.abs(floats(channels)) + 0.5, floats(channels) * 0.1]
        self.add("BatchNorm", "batch_norm_param { eps: 0.001 use_global_stats: true }", blob, blob, f"{blob}_bn")
        self.add("Scale", "scale_param { bias_term: true }", blob, blob, f"{blob}_scale")

    def multiply(self, bottom: str, top: str, sizes: tuple[int, int]) -> str:
        """An inner product; `sizes`: numbers read and made."""
        self.weights[top] = [floats(sizes[1], sizes[0]) * sizes[0] ** -0.5, floats(sizes[1])]
        return self.add("InnerProduct", f"inner_product_param {{ num_output: {sizes[1]} }}", bottom, top)


def _alexnet() -> _Writer:
    net = _Writer()
    net.convolve("x", "conv1", (3, 8), "kernel_size: 5 stride: 2")
    net.add("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }", "conv1", "norm1")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }", "norm1", "pool1")
    net.convolve("pool1", "conv2", (8, 12), "kernel_size: 3 pad: 1 group: 2")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }", "conv2", "pool2")
    net.multiply("pool2", "fc6", (12 * 3 * 3, 16))
    net.add("ReLU", "", "fc6", "fc6", "relu6")
    net.add("Dropout", "dropout_param { dropout_ratio: 0.5 }", "fc6", "fc6", "drop6")
    net.multiply("fc6", "fc8", (16, 10))
    net.add("Softmax", "", "fc8", "prob")
    return net


def _googlenet() -> _Writer:
    net = _Writer()
    net.convolve("x", "stem", (3, 8), "kernel_size: 7 pad: 3 stride: 2")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }", "stem", "p")
    net.convolve("p", "one", (8, 4), "kernel_size: 1")
    net.convolve("p", "three_reduce", (8, 6), "kernel_size: 1")
    net.convolve("three_reduce", "three", (6, 8))
    net.convolve("p", "five_reduce", (8, 2), "kernel_size: 1")
    net.convolve("five_reduce", "five", (2, 4), "kernel_size: 5 pad: 2")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }", "p", "pool")
    net.convolve("pool", "pool_proj", (8, 4), "kernel_size: 1")
    net.add("Concat", "", "one three five pool_proj", "inception")
    net.add("Pooling", "pooling_param { pool: AVE kernel_size: 7 stride: 1 }", "inception", "gap")
    net.multiply("gap", "fc", (20, 10))
    net.add("Softmax", "", "fc", "prob")
    return net


def _mobilenet_ssd() -> _Writer:
    net = _Writer()
    net.convolve("x", "conv0", (3, 8), "kernel_size: 3 pad: 1 stride: 2")
    net.convolve("conv0", "dw", (8, 8), "kernel_size: 3 pad: 1 group: 8")
    net.normalize("dw", 8)
    net.convolve("dw", "a", (8, 12), "kernel_size: 1")
    net.convolve("a", "b", (12, 12), "kernel_size: 3 pad: 1 stride: 2")
    net.add(
        "Normalize", "norm_param { across_spatial: false scale_filler { value: 20 } channel_shared: false }", "a", "an"
    )
    net.weights["an"] = [np.full(12, 20, np.float32)]
    for kind, each in (("loc", 4), ("conf", 3)):
        parts = []
        for blob in ("an", "b"):
            name = f"{blob}_{kind}"
            net.weights[name] = [floats(4 * each, 12, 1, 1) * 0.1, floats(4 * each)]
            net.add("Convolution", f"convolution_param {{ num_output: {4 * each} kernel_size: 1 }}", blob, name)
            net.add("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", name, f"{name}_perm")
            parts.append(net.add("Flatten", "flatten_param { axis: 1 }", f"{name}_perm", f"{name}_flat"))
        net.add("Concat", "concat_param { axis: 1 }", " ".join(parts), f"mbox_{kind}")
    sizes = "min_size: 6 max_size: 12 aspect_ratio: 2 flip: true clip: false "
    variances = "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 offset: 0.5"
    for blob in ("an", "b"):
        net.add("PriorBox", f"prior_box_param {{ {sizes} {variances} }}", f"{blob} x", f"{blob}_prior")
    net.add("Concat", "concat_param { axis: 2 }", "an_prior b_prior", "mbox_priorbox")
    net.add("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }", "mbox_conf", "conf_reshape")
    net.add("Softmax", "softmax_param { axis: 2 }", "conf_reshape", "conf_softmax")
    net.add("Flatten", "flatten_param { axis: 1 }", "conf_softmax", "mbox_conf_flatten")
    return net


def _edges() -> _Writer:
    """Side outputs of several sizes brought to the picture's, as in HED and FCN."""
    net = _Writer()
    net.convolve("x", "c1", (3, 8), "kernel_size: 3 pad: 5")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }", "c1", "p1")
    net.convolve("p1", "c2", (8, 12))
    sides = []
    for blob, channels in (("c1", 8), ("c2", 12)):
        net.weights[f"{blob}_score"] = [floats(1, channels, 1, 1), floats(1)]
        score = net.add("Convolution", "convolution_param { num_output: 1 kernel_size: 1 }", blob, f"{blob}_score")
        if blob == "c2":
            up = "convolution_param { kernel_size: 4 stride: 2 num_output: 1 bias_term: false }"
            net.weights["up"] = [np.outer([1, 3, 3, 1], [1, 3, 3, 1]).reshape(1, 1, 4, 4).astype(np.float32) / 16]
            score = net.add("Deconvolution", up, score, "up")
        sides.append(net.add("Crop", "crop_param { axis: 2 offset: 4 }", f"{score} x", f"{blob}_crop"))
    net.add("Concat", "", " ".join(sides), "both")
    net.weights["fused"] = [floats(1, 2, 1, 1), floats(1)]
    net.add("Convolution", "convolution_param { num_output: 1 kernel_size: 1 }", "both", "fused")
    net.add("Sigmoid", "", "fused", "edges")
    return net


def _shuffle_and_excite() -> _Writer:
    net = _Writer()
    net.convolve("x", "c", (3, 8))
    net.convolve("c", "g1", (8, 8), "kernel_size: 1 group: 2")
    net.add("ShuffleChannel", "shuffle_channel_param { group: 2 }", "g1", "s")
    net.convolve("s", "d", (8, 8), "kernel_size: 3 pad: 1 stride: 2 group: 8")
    net.normalize("d", 8)
    net.add("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 0 }", "c", "avg")
    net.add("Concat", "", "avg d", "u")
    net.add("Pooling", "pooling_param { pool: AVE global_pooling: true }", "u", "gap")
    net.convolve("gap", "down", (16, 4), "kernel_size: 1")
    net.weights["gate_conv"] = [floats(16, 4, 1, 1), floats(16)]
    net.add("Convolution", "convolution_param { num_output: 16 kernel_size: 1 }", "down", "gate", "gate_conv")
    net.add("Sigmoid", "", "gate", "gate", "gate_sigmoid")
    net.add("Flatten", "", "gate", "flat")
    net.add("Scale", "scale_param { axis: 0 }", "u flat", "excited")
    net.add("Eltwise", "eltwise_param { operation: SUM }", "excited u", "sum")
    net.add("PReLU", "", "sum", "out")
    net.weights["out"] = [floats(16)]
    return net


NETS = {
    "alexnet": (_alexnet, (1, 3, 31, 31)),
    "googlenet": (_googlenet, (1, 3, 28, 28)),
    "mobilenet ssd": (_mobilenet_ssd, (1, 3, 24, 32)),
    "edges": (_edges, (1, 3, 16, 20)),
    "shuffle and excite": (_shuffle_and_excite, (1, 3, 16, 16)),
}


@pytest.mark.parametrize("name", NETS)
def test_nets_built_as_real_ones(tmp_path: Path, name: str) -> None:
    write, shape = NETS[name]
    made = write()
    assert_as_opencv(tmp_path, made.text, made.weights, {"x": shape}, tolerance=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_nets_go_through_an_int8_build_analysis_and_export(tmp_path: Path, name: str) -> None:
    write, shape = NETS[name]
    made = write()
    session = Session()
    session.load_caffe(*save(tmp_path, net(made.text, {"x": shape}), made.weights))
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", floats(*shape, seed=index).transpose(0, 2, 3, 1))
    (tmp_path / "dataset.txt").write_text("".join(f"{index}.npy\n" for index in range(3)))
    session.build(dataset=tmp_path / "dataset.txt")
    report = session.analyze([tmp_path / "0.npy"])
    assert min(error.cosine for error in report.outputs.values()) > 0.95
    assert session.export(tmp_path / "net.rknn").stat().st_size > 1000
