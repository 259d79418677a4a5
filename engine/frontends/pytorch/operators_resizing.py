"""Resizing of pictures, and moving channels to pixels and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.frontends.pytorch import eager
from engine.frontends.pytorch.operators_activation import like
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation, axis_of
from engine.frontends.pytorch.values import Refused, Tensor

_MODES = {
    "nearest": "nearest",
    "nearest-exact": "nearest",
    "linear": "linear",
    "bilinear": "linear",
    "trilinear": "linear",
    "bicubic": "cubic",
}


def resize(
    t: Translation,
    x: Tensor,
    mode: str,
    sizes: Sequence[int],
    scales: Sequence[float] | None,
    *,
    align_corners: bool = False,
    antialias: bool = False,
) -> Tensor:
    """Resized to `sizes`; `scales` are what the source's positions follow from, where it gives them."""
    if mode not in _MODES:
        raise Refused(f"resizes in the mode {mode!r}")
    if len(sizes) != x.rank - 2 or min(sizes, default=0) < 1:
        raise Refused(f"resizes {list(x.shape)} to {list(sizes)}")
    if mode.startswith("nearest"):
        return like(t, x, _nearest(t, x, sizes, scales, exact=mode == "nearest-exact"))
    exact = scales is not None and [int(n * s) for n, s in zip(x.shape[2:], scales, strict=True)] == list(sizes)
    if antialias or (align_corners and any(m == 1 < n for n, m in zip(x.shape[2:], sizes, strict=True))):
        if scales is not None and any(s * n != m for s, n, m in zip(scales, x.shape[2:], sizes, strict=True)):
            raise Refused("resizes by factors that do not give whole sizes", "resize to a size instead")
        return like(t, x, _by_matrices(t, x, mode, sizes, align_corners=align_corners, antialias=antialias))
    attributes = {
        "mode": _MODES[mode],
        "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
        "cubic_coeff_a": -0.75 if mode == "bicubic" else None,
    }
    # With aligned corners only the sizes count.
    if scales is not None and exact and not align_corners:
        result = t.emit("Resize", x, None, np.array([1, 1, *scales], np.float32), **attributes)
    else:
        result = t.emit("Resize", x, None, None, [*x.shape[:2], *sizes], **attributes)
    return like(t, x, result)


def _by_matrices(
    t: Translation, x: Tensor, mode: str, sizes: Sequence[int], *, align_corners: bool, antialias: bool
) -> Tensor:
    """What ONNX has no resizing for: a product for every dimension, with what torch makes of single points."""
    name = {"linear": "bilinear"}.get(mode, mode)
    if name not in ("bilinear", "bicubic") or x.rank != 4:
        raise Refused(f"resizes in the mode {mode!r}")
    kind = f"aten::_upsample_{name}2d_aa" if antialias else f"aten::upsample_{name}2d"
    result = x
    for axis, (n, m) in enumerate(zip(x.shape[2:], sizes, strict=True), start=2):
        if n == m:
            continue
        points = eager.from_array(np.eye(n, dtype=np.float32).reshape(1, 1, n, n))
        matrix = t.array(Tensor(eager.call(kind, "", [points, [n, m], align_corners, None, None]))).reshape(n, m)
        if axis == 3:
            result = t.emit("MatMul", result, matrix)
        else:
            result = t.emit("MatMul", np.ascontiguousarray(matrix.T), result)
    return result


def _nearest(t: Translation, x: Tensor, sizes: Sequence[int], scales: Sequence[float] | None, *, exact: bool) -> Tensor:
    """Resize where whole factors make the places certain; else places are taken as torch computes them."""
    before = x.shape[2:]
    if all(m % n == 0 for n, m in zip(before, sizes, strict=True)) and (
        scales is None or all(s == m / n for s, n, m in zip(scales, before, sizes, strict=True))
    ):
        factors = np.array([1, 1, *(m / n for n, m in zip(before, sizes, strict=True))], np.float32)
        return t.emit(
            "Resize",
            x,
            None,
            factors,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    result = x
    for index, (n, m) in enumerate(zip(before, sizes, strict=True)):
        factor = np.float32(n / m) if scales is None else np.float32(1 / scales[index])
        places = np.arange(m, dtype=np.float32)
        at = np.floor((places + np.float32(0.5)) * factor if exact else places * factor).astype(np.int64)
        at = np.minimum(at, n - 1)
        if not np.array_equal(at, np.arange(n)):
            result = t.emit("Gather", result, at, axis=index + 2)
    return result


def _asked(a: Arguments, x: Tensor, size: str, factors: str) -> tuple[list[int], list[float] | None]:
    """The size that is asked for, and the factors where they are."""
    before = x.shape[2:]
    given = a.get(factors)
    if given is None:
        own = [a.get(name) for name in ("scales_d", "scales_h", "scales_w", "scales") if name in a]
        given = own if own and all(value is not None for value in own) else None
    if a.get(size) is not None:
        sizes = a.integers(size)
        sizes = sizes * len(before) if len(sizes) == 1 else sizes
        return sizes, [float(str(s)) for s in given] if given is not None and factors != "scale_factor" else None
    if given is None:
        raise Refused("says neither size nor factor")
    scales = [float(s) for s in given] if isinstance(given, (list, tuple)) else [float(str(given))] * len(before)
    scales = scales * len(before) if len(scales) == 1 else scales
    if a.flag("recompute_scale_factor"):
        return [int(n * s) for n, s in zip(before, scales, strict=True)], None
    return [int(n * s) for n, s in zip(before, scales, strict=True)], scales


def _upsample(mode: str, *, antialias: bool = False) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("self" if "self" in a else "input")
        sizes, scales = _asked(a, x, "output_size", "scale_factors")
        return resize(t, x, mode, sizes, scales, align_corners=a.flag("align_corners"), antialias=antialias)

    return handler


operator("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", becomes="Gather Resize")(
    _upsample("nearest")
)
operator(
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", becomes="Gather Resize"
)(_upsample("nearest-exact"))
operator("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", becomes="MatMul Resize")(
    _upsample("linear")
)
operator("upsample_bicubic2d", becomes="MatMul Resize")(_upsample("bicubic"))
operator("_upsample_bilinear2d_aa", becomes="MatMul")(_upsample("bilinear", antialias=True))
operator("_upsample_bicubic2d_aa", becomes="MatMul")(_upsample("bicubic", antialias=True))


@operator("__interpolate", "__upsample", "__upsample_bilinear", "__upsample_nearest", becomes="Gather MatMul Resize")
def _interpolate(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("input")
    sizes, scales = _asked(a, x, "size", "scale_factor")
    return resize(
        t,
        x,
        str(a.get("mode") or "nearest"),
        sizes,
        scales,
        align_corners=a.flag("align_corners"),
        antialias=a.flag("antialias"),
    )


@operator("pixel_shuffle", becomes="DepthToSpace Reshape")
def _pixel_shuffle(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    four = t.reshape(x, (1, *x.shape)) if x.rank == 3 else x
    result = t.emit("DepthToSpace", four, blocksize=a.integer("upscale_factor"), mode="CRD")
    return t.reshape(result, result.shape[1:]) if x.rank == 3 else result


@operator("pixel_unshuffle", becomes="Reshape Transpose")
def _pixel_unshuffle(t: Translation, a: Arguments) -> Tensor:
    x, r = a.tensor("self"), a.integer("downscale_factor")
    *before, c, h, w = x.shape
    if r < 1 or h % r or w % r:
        raise Refused(f"takes {list(x.shape)} apart by {r}")
    parted = t.reshape(x, (*before, c, h // r, r, w // r, r))
    n = len(before)
    moved = t.transpose(parted, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return t.reshape(moved, (*before, c * r * r, h // r, w // r))


@operator("channel_shuffle", "native_channel_shuffle", becomes="Reshape Transpose")
def _channel_shuffle(t: Translation, a: Arguments) -> Tensor:
    x, groups = a.tensor("self"), a.integer("groups")
    axis = axis_of(1, x.rank)
    n, c, *rest = x.shape
    if groups < 1 or c % groups or axis != 1:
        raise Refused(f"shuffles {list(x.shape)} in {groups} groups")
    parted = t.reshape(x, (n, groups, c // groups, *rest))
    moved = t.transpose(parted, [0, 2, 1, *range(3, parted.rank)])
    return like(t, x, t.reshape(moved, x.shape))


_PADDINGS = {0: "zeros", 1: "border", 2: "reflection"}


@operator("grid_sampler", "grid_sampler_2d", becomes="GridSample")
def _grid_sampler(t: Translation, a: Arguments) -> Tensor:
    x, grid = a.tensor("input"), a.tensor("grid")
    mode, padding = a.integer("interpolation_mode"), a.integer("padding_mode")
    if x.rank != 4 or mode not in (0, 1, 2) or padding not in _PADDINGS:
        raise Refused(f"samples {list(x.shape)} in mode {mode}")
    return t.emit(
        "GridSample",
        x,
        grid,
        mode=("bilinear", "nearest", "bicubic")[mode],
        padding_mode=_PADDINGS[padding],
        align_corners=int(a.flag("align_corners")),
    )


@operator("affine_grid_generator", becomes="MatMul Reshape Transpose")
def _affine_grid(t: Translation, a: Arguments) -> Tensor:
    theta, size = a.tensor("theta"), a.integers("size")
    if len(size) != 4:
        raise Refused(f"makes a grid for {size}")
    n, _, h, w = size
    axes = []
    for count in (h, w):
        places = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        axes.append(places if a.flag("align_corners") else places * (count - 1) / count)
    points = np.stack([*np.meshgrid(axes[1], axes[0]), np.ones((h, w))], axis=-1).reshape(1, h * w, 3)
    return t.reshape(t.emit("MatMul", points.astype(np.float32), t.transpose(theta, [0, 2, 1])), (n, h, w, 2))


@operator("col2im", becomes="Col2Im")
def _col2im(t: Translation, a: Arguments) -> Tensor:
    x, padding = a.tensor("self"), a.integers("padding", 2)
    if x.rank != 3:
        raise Refused(f"puts together {list(x.shape)}")
    attributes = {"dilations": a.integers("dilation", 2), "pads": padding * 2, "strides": a.integers("stride", 2)}
    return t.emit("Col2Im", x, a.integers("output_size", 2), a.integers("kernel_size", 2), **attributes)
