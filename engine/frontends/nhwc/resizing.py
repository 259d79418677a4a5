"""Changes the size of pictures, with the positions that the kernels of TensorFlow and TFLite use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.helper

from engine.frontends.nhwc.shaping import pick
from engine.frontends.nhwc.tensors import Place, Tensor, checked_size
from engine.ort import make_session, run

# No picture comes near; where each of its rows is taken from is listed.
_LONGEST_SIDE = 1 << 16


def resize(
    x: Tensor,
    place: Place,
    *,
    size: Sequence[int],
    kind: str,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Tensor:
    """[N, H, W, C] with another height and width; `kind` 'linear' or 'nearest'. Raises ModelError."""
    if x.rank != 4 or len(size) != 2 or min(size) < 1 or max(*size, *x.shape[1:3]) > _LONGEST_SIDE:
        raise place.error(f"resizes {list(x.shape)} to {list(size)}")
    checked_size((x.shape[0], *size, x.shape[3]), place)
    if align_corners and half_pixel_centers:
        raise place.error("resizes with aligned corners and half-pixel centres")
    mode = "align_corners" if align_corners else "half_pixel" if half_pixel_centers else "asymmetric"
    rounding = None
    if kind == "nearest":
        rounding = "floor" if mode == "asymmetric" else "round_prefer_ceil"
        wanted = [nearest_index(n, int(m), mode) for n, m in zip(x.shape[1:3], size, strict=True)]
        scale = [m / n for n, m in zip(x.shape[1:3], size, strict=True)]
        if not all(
            _runtime_agrees(n, s, mode, rounding, w) for n, s, w in zip(x.shape[1:3], scale, wanted, strict=True)
        ):
            rows = pick(x, place.within("rows"), wanted[0], 1)
            return pick(rows, place, wanted[1], 2)
    sizes = place.constant(np.array([x.shape[0], x.shape[3], *size], np.int64), "sizes")
    result = place.node(
        "Resize",
        [x.first(), None, None, sizes],
        mode=kind,
        coordinate_transformation_mode=mode,
        nearest_mode=rounding,
    )
    return Tensor.of_first(result, place)


def nearest_index(size: int, wanted: int, mode: str) -> np.ndarray:
    """Where each of `wanted` elements comes from among `size`, in the single precision that the kernels compute in."""
    scale = np.float32(size) / np.float32(wanted)
    if mode == "align_corners" and wanted > 1:
        scale = np.float32(size - 1) / np.float32(wanted - 1)
    position = np.arange(wanted, dtype=np.float32)
    if mode == "half_pixel":
        position = position + np.float32(0.5)
    position = position * scale
    index = np.floor(position + np.float32(0.5)) if mode == "align_corners" else np.floor(position)
    clipped: np.ndarray = np.clip(index.astype(np.int64), 0, size - 1)
    return clipped


def _runtime_agrees(size: int, scale: float, mode: str, rounding: str, wanted: np.ndarray) -> bool:
    """Whether ONNX Runtime, which divides where the kernels multiply, takes the same elements."""
    numbers = onnx.numpy_helper.from_array(np.arange(size, dtype=np.float32).reshape(1, 1, size, 1), "x")
    sizes = onnx.numpy_helper.from_array(np.array([1, 1, len(wanted), 1], np.int64), "sizes")
    node = onnx.helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], coordinate_transformation_mode=mode, nearest_mode=rounding
    )
    proto = onnx.ModelProto(ir_version=9, opset_import=[onnx.OperatorSetIdProto(version=19)])
    proto.graph.name = "resize"
    proto.graph.node.append(node)
    proto.graph.initializer.extend([numbers, sizes])
    proto.graph.output.add(name="y")
    found = run(make_session(proto, optimization="none", threads=1), None, {})[0]
    return bool(np.array_equal(found.reshape(-1).astype(np.int64), wanted))


def depth_to_space(x: Tensor, place: Place, *, block: int) -> Tensor:
    """[N, H, W, C] with blocks of the channels moved into space. Raises ModelError."""
    if x.rank != 4 or block < 1 or x.shape[3] % (block * block):
        raise place.error(f"moves the channels of {list(x.shape)} into blocks of {block}")
    return Tensor.of_first(place.node("DepthToSpace", [x.first()], blocksize=block, mode="DCR"), place)


def space_to_depth(x: Tensor, place: Place, *, block: int) -> Tensor:
    """[N, H, W, C] with blocks of space moved into the channels. Raises ModelError."""
    if x.rank != 4 or block < 1 or any(n % block for n in x.shape[1:3]):
        raise place.error(f"moves blocks of {block} of {list(x.shape)} into the channels")
    return Tensor.of_first(place.node("SpaceToDepth", [x.first()], blocksize=block), place)
