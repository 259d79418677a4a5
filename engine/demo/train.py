"""Trains the bundled digit classifier and writes every other file of this folder: model, images, calibration list.

Not imported by the engine; it needs packages that the engine does without. To repeat it, from the top of the source:

    python -m venv training
    training/bin/pip install torch==2.13.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1 pillow==13.0.0
    training/bin/python -m engine.demo.train

It takes about half a minute on one core. Seeds are fixed and one thread is used, so that one machine gives one result;
another processor, torch release or seed ends in another network, as good in float, whose `size` reaches further or less
far; then int8 costs more or less, and SIZE_GAIN has to be chosen anew.

The network is small, and has what quantizing a real one meets: batch normalization, a hard-swish spelled out as
Add, Clip, Mul and Div, depthwise and pointwise convolutions, a residual Add, and a Concat whose int8 scale fails.

That Concat copies a detector's head, which joins box sides in pixels with probabilities in one tensor:

    size      Conv, BatchNormalization, Relu, times SIZE_GAIN    4 channels, up to about two hundred
    evidence  Conv, BatchNormalization, Sigmoid                  28 channels in 0..1, most of them near 0

Nothing is wrong with it in float: the BatchNormalization behind the Concat learns each channel's own mean and
deviation, so the gain is undone, and training goes as if it were not there. In int8 the joined tensor has one scale,
(max - min) / 255, which `size` sets alone: one step of it is most of what `evidence` can say, so every channel of
`evidence` is rounded to nothing or one step, and the digits that finer differences tell apart are lost. No weight was
altered after training to bring this about. With the Concat and the BatchNormalization that reads it in float16, each
branch keeps the scale of its own range, and the accuracy returns.
"""

# torch and scikit-learn may be absent where types are checked, and the latter has none.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from engine.demo import DATASET, IMAGES, MEAN, MODEL, STD, image_name

Array = np.ndarray[Any, Any]

SEED = 7
SIDE = 24
"""Side of an image in pixels; three times the eight of the source, enlarged with bilinear filtering."""
CALIBRATION_IMAGES = 32
TEST_IMAGES = 64
HELD_OUT = 400
"""Images of the 1797 never trained on; TEST_IMAGES of them, drawn by class and otherwise at random, are bundled."""
EPOCHS = 40
BATCH = 32
SIZE_GAIN = 36.0
"""What `size` is multiplied with, chosen so that int8 errs on about a quarter of the digits.

The damage grows with it: half of it costs next to nothing, twice leaves mere guesses.
"""
EVIDENCE_PRIOR = -3.0
"""Where the inputs of the sigmoid start, as detectors do it: evidence is rare, so a probability begins near 0.05."""


def enlarged_digits() -> tuple[Array, Array]:
    """The digits as uint8 [1797, SIDE, SIDE] in 0..255, and their labels [1797] in 0..9."""
    digits = load_digits()
    # The source counts inked pixels in 4x4 blocks: 0..16.
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    enlarged = [np.asarray(Image.fromarray(g).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for g in grey]
    return np.stack(enlarged), digits.target.astype(np.int64)


def splits(labels: Array) -> tuple[Array, Array, Array, Array]:
    """Row numbers to train on, to calibrate on (some of the first), to test on, and held out (the third among them)."""
    rows = np.arange(len(labels))
    train, held_out = train_test_split(rows, test_size=HELD_OUT, stratify=labels, random_state=SEED)
    _, calibration = train_test_split(train, test_size=CALIBRATION_IMAGES, stratify=labels[train], random_state=SEED)
    _, test = train_test_split(held_out, test_size=TEST_IMAGES, stratify=labels[held_out], random_state=SEED)
    return train, np.sort(calibration), np.sort(test), held_out


def normalized(images: Array) -> Array:
    """uint8 [N, SIDE, SIDE] as the network's float32 [N, 1, SIDE, SIDE] in 0..1."""
    return ((images[:, None].astype(np.float32) - MEAN[0]) / STD[0]).astype(np.float32)


def network() -> nn.ModuleDict:
    """The layers with weights; each name is that of the tensor it makes in the ONNX graph."""

    def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)

    return nn.ModuleDict(
        {
            "stem_conv": convolution(1, 16, 3, stride=2),
            "stem_norm": nn.BatchNorm2d(16),
            "local_depthwise": convolution(16, 16, 3, groups=16),
            "local_depthwise_norm": nn.BatchNorm2d(16),
            "local_pointwise": convolution(16, 16, 1),
            "local_pointwise_norm": nn.BatchNorm2d(16),
            "down_depthwise": convolution(16, 16, 3, stride=2, groups=16),
            "down_depthwise_norm": nn.BatchNorm2d(16),
            "down_pointwise": convolution(16, 32, 1),
            "down_pointwise_norm": nn.BatchNorm2d(32),
            "size_conv": convolution(32, 4, 1),
            "size_norm": nn.BatchNorm2d(4),
            "evidence_conv": convolution(32, 28, 1),
            "evidence_norm": nn.BatchNorm2d(28),
            "joined_norm": nn.BatchNorm2d(32),
            "mix_conv": convolution(32, 32, 3),
            "mix_norm": nn.BatchNorm2d(32),
            "scores": nn.Linear(32, 10),
        }
    )


def forward(layers: nn.ModuleDict, image: Any) -> Any:
    """Scores [N, 10], before the softmax, of images [N, 1, SIDE, SIDE]."""

    def normalized_conv(name: str, x: Any) -> Any:
        return layers[f"{name}_norm"](layers[name](x))

    x = layers["stem_norm"](layers["stem_conv"](image))
    stem = x * torch.clamp(x + 3, 0, 6) / 6
    local = normalized_conv("local_pointwise", torch.relu(normalized_conv("local_depthwise", stem)))
    x = torch.relu(normalized_conv("down_depthwise", stem + local))
    features = torch.relu(normalized_conv("down_pointwise", x))
    size = torch.relu(layers["size_norm"](layers["size_conv"](features))) * SIZE_GAIN
    evidence = torch.sigmoid(layers["evidence_norm"](layers["evidence_conv"](features)))
    joined = torch.relu(layers["joined_norm"](torch.cat([size, evidence], 1)))
    mixed = torch.relu(layers["mix_norm"](layers["mix_conv"](joined)))
    return layers["scores"](mixed.mean((2, 3)))


def trained(images: Array, labels: Array) -> nn.ModuleDict:
    """A network trained on uint8 images [N, SIDE, SIDE] with their labels [N]."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    generator = np.random.default_rng(SEED)
    layers = network()
    nn.init.constant_(layers["evidence_norm"].bias, EVIDENCE_PRIOR)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=4e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    layers.train()
    for epoch in range(EPOCHS):
        order = generator.permutation(len(images))
        losses = []
        # The rest that does not fill a batch is dropped; another order brings it in next time.
        for rows in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            down, right = generator.integers(-2, 3, 2)
            shifted = np.roll(images[rows], (down, right), (1, 2))
            loss = nn.functional.cross_entropy(
                forward(layers, torch.from_numpy(normalized(shifted))), torch.from_numpy(labels[rows])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    return layers.eval()


class GraphWriter:
    """Collects ONNX nodes and weights; every node is named like the tensor that it makes."""

    def __init__(self, layers: nn.ModuleDict) -> None:
        self.layers = layers
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: Any) -> str:
        """Store float32 `values` under `name`, and return the name."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node, and return the name of its output."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def convolution(self, x: str, name: str) -> str:
        """The Conv layer `name` and the BatchNormalization behind it; returns the latter's tensor."""
        conv, prefix = self.layers[name], name.removesuffix("_conv")
        x = self.node(
            "Conv",
            [x, self.weight(f"{name}.weight", conv.weight.detach())],
            name,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=list(conv.padding) * 2,
            group=conv.groups,
        )
        return self.normalization(x, f"{prefix}_norm")

    def normalization(self, x: str, name: str) -> str:
        """The BatchNormalization layer `name`, with the means and variances that training gathered."""
        norm = self.layers[name]
        parts = {"scale": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "variance": norm.running_var}
        inputs = [x] + [self.weight(f"{name}.{part}", values.detach()) for part, values in parts.items()]
        return self.node("BatchNormalization", inputs, name, epsilon=norm.eps)


def onnx_model(layers: nn.ModuleDict) -> onnx.ModelProto:
    """The trained network as ONNX: float32 'image' [1, 1, SIDE, SIDE] to 'probabilities' [1, 10]."""
    g = GraphWriter(layers)
    norm = g.convolution("image", "stem_conv")
    plus_three = g.node("Add", [norm, g.weight("three", 3)], "stem_plus_three")
    clipped = g.node("Clip", [plus_three, g.weight("zero", 0), g.weight("six", 6)], "stem_clip")
    product = g.node("Mul", [norm, clipped], "stem_product")
    stem = g.node("Div", [product, "six"], "stem")

    local = g.node("Relu", [g.convolution(stem, "local_depthwise")], "local_depthwise_relu")
    residual = g.node("Add", [stem, g.convolution(local, "local_pointwise")], "residual")
    down = g.node("Relu", [g.convolution(residual, "down_depthwise")], "down_depthwise_relu")
    features = g.node("Relu", [g.convolution(down, "down_pointwise")], "features")

    size_relu = g.node("Relu", [g.convolution(features, "size_conv")], "size_relu")
    size = g.node("Mul", [size_relu, g.weight("size_gain", SIZE_GAIN)], "size")
    evidence = g.node("Sigmoid", [g.convolution(features, "evidence_conv")], "evidence")
    joined = g.node("Concat", [size, evidence], "joined", axis=1)
    joined = g.node("Relu", [g.normalization(joined, "joined_norm")], "joined_relu")

    mixed = g.node("Relu", [g.convolution(joined, "mix_conv")], "mix")
    pooled = g.node("Flatten", [g.node("GlobalAveragePool", [mixed], "pooled")], "pooled_flat", axis=1)
    head = layers["scores"]
    weights = [g.weight("scores.weight", head.weight.detach()), g.weight("scores.bias", head.bias.detach())]
    scores = g.node("Gemm", [pooled, *weights], "scores", transB=1)
    g.node("Softmax", [scores], "probabilities", axis=1)

    graph = helper.make_graph(
        g.nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
        g.weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="rknn-tui"
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def top1(model: Path, images: Array, labels: Array) -> float:
    """The share of uint8 images [N, SIDE, SIDE] whose likeliest class is their label."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = [int(np.argmax(session.run(None, {"image": x[None]})[0])) for x in normalized(images)]
    return float(np.mean(np.asarray(found) == labels))


def write_images(images: Array, labels: Array, calibration: Array, test: Array) -> None:
    """Replace the bundled images and the list of those to calibrate on."""
    shutil.rmtree(IMAGES, ignore_errors=True)
    IMAGES.mkdir()
    names = {}
    for role, rows in (("calibration", calibration), ("test", test)):
        names[role] = [image_name(role, int(row), int(labels[row])) for row in rows]
        for row, name in zip(rows, names[role], strict=True):
            Image.fromarray(images[row]).save(IMAGES / name, optimize=True)
    lines = [f"{IMAGES.name}/{name}\n" for name in names["calibration"]]
    DATASET.write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Train, export, and print the accuracy on images that were not trained on."""
    images, labels = enlarged_digits()
    train, calibration, test, held_out = splits(labels)
    layers = trained(images[train], labels[train])
    onnx.save(onnx_model(layers), MODEL)
    write_images(images, labels, calibration, test)
    print(f"{MODEL.name}: {MODEL.stat().st_size} bytes")
    for name, rows in (("held out", held_out), ("of them, bundled for tests", test)):
        print(f"top-1 on {len(rows)} images {name}: {top1(MODEL, images[rows], labels[rows]):.4f}")


if __name__ == "__main__":
    main()
