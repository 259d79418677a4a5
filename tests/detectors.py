"""Builds a small detector of bright squares whose boxes and class scores share one Concat, and images for it.

The layout is that of YOLOv8's heads: boxes in pixels and scores in 0..1 are parts of one output, [1, 4 + classes,
cells]. The features are random convolutions; the heads are fitted to them by least squares, so that it really detects.
Boxes are told in pixels of a photo twice as wide as the image, as an application that shrinks its photos wants them.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnxruntime import InferenceSession

from tests.small_networks import Array, integers, network

SIZE, STRIDE, CLASSES = 320, 32, 2
PHOTO = 640
CELLS = SIZE // STRIDE
_CHANNELS = (8, 16, 24, 32, 48)

_FEATURES = """
a0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, w0, b0)
f0 = Relu (a0)
a1 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (f0, w1, b1)
f1 = Relu (a1)
a2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (f1, w2, b2)
f2 = Relu (a2)
a3 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (f2, w3, b3)
f3 = Relu (a3)
a4 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (f3, w4, b4)
f4 = Relu (a4)
"""
_HEADS = """
box = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (f4, box_w, box_b)
class = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (f4, class_w, class_b)
box_flat = Reshape (box, box_shape)
class_flat = Reshape (class, class_shape)
near, far = Split <axis = 1, num_outputs = 2> (box_flat)
start = Sub (centres, near)
end = Add (far, centres)
corners = Concat <axis = 1> (start, end)
boxes = Mul (corners, stride)
scores = Sigmoid (class_flat)
y = Concat <axis = 1> (boxes, scores)
"""


def image(seed: int) -> tuple[Array, list[tuple[int, Array]]]:
    """An image in 0..1, [1, 3, SIZE, SIZE], and its squares: class (the channel that is bright) and corners in it."""
    rng = np.random.default_rng(seed)
    picture = rng.uniform(0.0, 0.15, (1, 3, SIZE, SIZE))
    squares: list[tuple[int, Array]] = []
    for quarter in rng.permutation(4)[: rng.integers(1, 4)]:
        side = int(rng.integers(48, 120))
        left, top = (int(rng.integers(0, SIZE // 2 - side)) + SIZE // 2 * int(at) for at in (quarter % 2, quarter // 2))
        kind = int(rng.integers(CLASSES))
        picture[:, kind, top : top + side, left : left + side] += rng.uniform(0.5, 0.8)
        squares.append((kind, np.array([left, top, left + side, top + side], np.float64)))
    return np.clip(picture, 0.0, 1.0).astype(np.float32), squares


@functools.cache
def detector() -> onnx.ModelProto:
    """The detector: input `x`, [1, 3, SIZE, SIZE] in 0..1; output `y`, corners in the photo, then a score a class."""
    constants = _features()
    body = network({"x": (1, 3, SIZE, SIZE)}, _FEATURES, constants, ["f4"])
    session = InferenceSession(body.SerializeToString(), providers=["CPUExecutionProvider"])
    neighbours, logits, distances, inside = [], [], [], []
    for seed in range(1000, 1040):
        picture, squares = image(seed)
        (features,) = session.run(["f4"], {"x": picture})
        neighbours.append(_neighbours(features))
        wanted = _targets(squares)
        logits.append(wanted[0])
        distances.append(wanted[1])
        inside.append(wanted[2])
    rows, hit = np.concatenate(neighbours), np.concatenate(inside)
    box = _fit(rows[hit], np.concatenate(distances)[hit])
    kind = _fit(rows, np.concatenate(logits))
    centre = np.arange(CELLS, dtype=np.float32) + np.float32(0.5)
    across, down = np.meshgrid(centre, centre)
    constants |= {
        "box_w": box[0], "box_b": box[1], "class_w": kind[0], "class_b": kind[1],
        "box_shape": integers(1, 4, CELLS**2), "class_shape": integers(1, CLASSES, CELLS**2),
        "centres": np.stack([across.reshape(-1), down.reshape(-1)])[None],
        "stride": np.array(PHOTO / CELLS, np.float32),
    }  # fmt: skip
    return network({"x": (1, 3, SIZE, SIZE)}, _FEATURES.rstrip() + _HEADS, constants)


def _features() -> dict[str, Array]:
    rng = np.random.default_rng(7)
    constants: dict[str, Array] = {}
    before = 3
    for index, channels in enumerate(_CHANNELS):
        spread = np.sqrt(2.0 / (9 * before))
        constants[f"w{index}"] = (rng.normal(size=(channels, before, 3, 3)) * spread).astype(np.float32)
        constants[f"b{index}"] = (rng.normal(size=channels) * 0.05).astype(np.float32)
        before = channels
    return constants


def _neighbours(features: Array) -> Array:
    """For each cell a row: the 3 x 3 features around it in the order of a convolution's weights, and 1."""
    padded = np.pad(features[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    rows = windows.transpose(1, 2, 0, 3, 4).reshape(CELLS**2, -1).astype(np.float64)
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def _targets(squares: list[tuple[int, Array]]) -> tuple[Array, Array, Array]:
    """By cell: the wished logits, the distances to the sides in cells, and whether its centre lies in a square."""
    logits = np.full((CELLS**2, CLASSES), -4.0)
    distances = np.zeros((CELLS**2, 4))
    inside = np.zeros(CELLS**2, bool)
    for kind, corners in squares:
        for cell in range(CELLS**2):
            centre = (np.array([cell % CELLS, cell // CELLS]) + 0.5) * STRIDE
            if (corners[:2] <= centre).all() and (centre < corners[2:]).all():
                logits[cell, kind] = 1.0
                distances[cell] = np.concatenate([centre - corners[:2], corners[2:] - centre]) / STRIDE
                inside[cell] = True
    return logits, distances, inside


def _fit(rows: Array, wanted: Array) -> tuple[Array, Array]:
    """Weights [outputs, channels, 3, 3] and biases that make `wanted` of `rows`, by ridge regression."""
    gram = rows.T @ rows + 0.05 * len(rows) * np.eye(rows.shape[1]) * np.mean(rows**2)
    solution = np.linalg.solve(gram, rows.T @ wanted).T
    weights = solution[:, :-1].reshape(len(solution), _CHANNELS[-1], 3, 3)
    return weights.astype(np.float32), solution[:, -1].astype(np.float32)


def detections(output: Array, threshold: float = 0.5) -> list[tuple[int, Array]]:
    """Class, and corners in the photo, of every cell whose score reaches `threshold`."""
    found = []
    for cell in np.argwhere(output[0, 4:].max(axis=0) >= threshold).reshape(-1):
        found.append((int(output[0, 4:, cell].argmax()), output[0, :4, cell]))
    return found
