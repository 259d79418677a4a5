"""Reductions, extremes with their places, sorting and sums along a dimension."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engine.frontends.pytorch.operators_activation import like
from engine.frontends.pytorch.operators_arithmetic import binary, to_type, truth
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation, axes_of, axis_of
from engine.frontends.pytorch.values import Refused, Tensor

_INT64 = ir.DataType.INT64


def reduced(t: Translation, op_type: str, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """A reduction over `axes`; of a tensor without dimensions there is nothing to reduce."""
    if x.rank == 0:
        return t.emit("Identity", x)
    return t.emit(op_type, x, axes, keepdims=int(keep))


def _axes(a: Arguments, x: Tensor) -> list[int]:
    return axes_of(a.integers("dim"), x.rank)


def _whole(t: Translation, a: Arguments, x: Tensor) -> Tensor:
    """In the type that torch sums in: whole numbers in int64."""
    if a.get("dtype") is not None:
        return to_type(t, x, a["dtype"])
    return x if x.is_float else t.cast(x, _INT64)


def _reduction(op_type: str, *, real: bool = False, same: bool = False) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        source = a.tensor("self")
        x = source if same else t.as_float(source) if real else _whole(t, a, source)
        result = reduced(t, op_type, x, _axes(a, x), a.flag("keepdim"))
        return like(t, source, result) if op_type == "ReduceMean" else result

    return handler


operator("mean", "nanmean", becomes="Identity ReduceMean")(_reduction("ReduceMean", real=True))
operator("sum", "nansum", becomes="Cast Identity ReduceSum")(_reduction("ReduceSum"))
operator("prod", becomes="Cast Identity ReduceProd")(_reduction("ReduceProd"))
operator("amax", becomes="Identity ReduceMax")(_reduction("ReduceMax", same=True))
operator("amin", becomes="Identity ReduceMin")(_reduction("ReduceMin", same=True))
operator("logsumexp", becomes="Identity ReduceLogSumExp")(_reduction("ReduceLogSumExp", real=True))


def _extreme(op_type: str, two: str, place: str) -> Handler:
    """`max` and `min`: of all, of two tensors, or along a dimension with the places."""

    def handler(t: Translation, a: Arguments) -> Tensor | list[Tensor]:
        x = a.tensor("self")
        if "other" in a:
            return binary(t, two, x, a["other"])
        if "dim" not in a:
            return reduced(t, op_type, x, list(range(x.rank)), False)
        axis, keep = axis_of(a.integer("dim"), x.rank), int(a.flag("keepdim"))
        return [t.emit(op_type, x, [axis], keepdims=keep), t.emit(place, x, axis=axis, keepdims=keep)]

    return handler


operator("max", becomes="ArgMax Identity Max ReduceMax")(_extreme("ReduceMax", "Max", "ArgMax"))
operator("min", becomes="ArgMin Identity Min ReduceMin")(_extreme("ReduceMin", "Min", "ArgMin"))


def _place(op_type: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("self")
        if a.get("dim") is None:
            flat = t.reshape(x, [math.prod(x.shape)])
            return t.reshape(t.emit(op_type, flat, axis=0, keepdims=0), [1] * x.rank if a.flag("keepdim") else [])
        return t.emit(op_type, x, axis=axis_of(a.integer("dim"), x.rank), keepdims=int(a.flag("keepdim")))

    return handler


operator("argmax", becomes="ArgMax Reshape")(_place("ArgMax"))
operator("argmin", becomes="ArgMin Reshape")(_place("ArgMin"))


def _truths(op_type: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        x = t.cast(truth(t, a.tensor("self")), ir.DataType.INT32)
        return t.cast(reduced(t, op_type, x, _axes(a, x), a.flag("keepdim")), ir.DataType.BOOL)

    return handler


operator("all", becomes="Cast ReduceMin")(_truths("ReduceMin"))
operator("any", becomes="Cast ReduceMax")(_truths("ReduceMax"))


@operator(
    "norm",
    "linalg_vector_norm",
    "frobenius_norm",
    becomes="Abs Identity Pow ReduceL1 ReduceL2 ReduceMax ReduceMin ReduceSum",
)
def _norm(t: Translation, a: Arguments) -> Tensor:
    x = t.as_float(a.tensor("self"))
    degree = a.number("p" if "p" in a else "ord", 2.0)
    axes, keep = _axes(a, x), a.flag("keepdim")
    if degree in (1, 2):
        return reduced(t, f"ReduceL{degree:g}", x, axes, keep)
    size = t.emit("Abs", x)
    if math.isinf(degree):
        return reduced(t, "ReduceMax" if degree > 0 else "ReduceMin", size, axes, keep)
    if degree == 0:
        raise Refused("counts what is not zero")
    total = reduced(t, "ReduceSum", t.emit("Pow", size, t.scalar(degree)), axes, keep)
    return t.emit("Pow", total, t.scalar(1 / degree))


def _spread(t: Translation, a: Arguments) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    x = t.as_float(a.tensor("self"))
    axes, keep = _axes(a, x), a.flag("keepdim")
    correction = a.get("correction", 1)
    if "unbiased" in a:
        correction = int(a.flag("unbiased"))
    correction = 1 if correction is None else correction
    count = math.prod(x.shape[axis] for axis in axes)
    if count - correction <= 0:
        raise Refused(f"takes the variance of {count} elements")
    mean = t.emit("ReduceMean", x, axes, keepdims=1)
    away = t.emit("Sub", x, mean)
    variance = t.emit("ReduceMean", t.emit("Mul", away, away), axes, keepdims=int(keep))
    if correction:
        variance = t.emit("Mul", variance, t.scalar(count / (count - correction)))
    if not keep:
        mean = t.reshape(mean, variance.shape)
    return variance, mean


_SPREAD = "Mul ReduceMean Reshape Sqrt Sub"


@operator("var", becomes=_SPREAD)
def _var(t: Translation, a: Arguments) -> Tensor:
    return _spread(t, a)[0]


@operator("std", becomes=_SPREAD)
def _std(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Sqrt", _spread(t, a)[0])


@operator("var_mean", becomes=_SPREAD)
def _var_mean(t: Translation, a: Arguments) -> list[Tensor]:
    return list(_spread(t, a))


@operator("std_mean", becomes=_SPREAD)
def _std_mean(t: Translation, a: Arguments) -> list[Tensor]:
    variance, mean = _spread(t, a)
    return [t.emit("Sqrt", variance), mean]


@operator("cumsum", becomes="CumSum")
def _cumsum(t: Translation, a: Arguments) -> Tensor:
    x = _whole(t, a, a.tensor("self"))
    return t.emit("CumSum", x, np.int64(axis_of(a.integer("dim"), x.rank)))


@operator("topk", becomes="TopK")
def _topk(t: Translation, a: Arguments) -> list[Tensor]:
    x = a.tensor("self")
    return t.emit_several(
        "TopK",
        2,
        x,
        [a.integer("k")],
        axis=axis_of(a.integer("dim", -1), x.rank),
        largest=int(a.flag("largest")),
        sorted=1,
    )


def _sorted(t: Translation, a: Arguments) -> list[Tensor]:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim", -1), x.rank)
    return t.emit_several("TopK", 2, x, [x.shape[axis]], axis=axis, largest=int(a.flag("descending")), sorted=1)


@operator("sort", becomes="TopK")
def _sort(t: Translation, a: Arguments) -> list[Tensor]:
    return _sorted(t, a)


@operator("argsort", becomes="TopK")
def _argsort(t: Translation, a: Arguments) -> Tensor:
    return _sorted(t, a)[1]


@operator("cosine_similarity", becomes="Div Max Mul ReduceL2 ReduceSum")
def _cosine(t: Translation, a: Arguments) -> Tensor:
    one, other = a.tensor("x1"), a.tensor("x2")
    axes = [axis_of(a.integer("dim", 1), max(one.rank, other.rank))]
    product = t.emit("ReduceSum", t.emit("Mul", one, other), axes, keepdims=0)
    least = t.scalar(a.number("eps", 1e-8))
    lengths = [t.emit("Max", t.emit("ReduceL2", x, axes, keepdims=0), least) for x in (one, other)]
    return t.emit("Div", product, t.emit("Mul", *lengths))


@operator("pairwise_distance", becomes="Abs Add Pow ReduceL1 ReduceL2 ReduceSum Sub")
def _distance(t: Translation, a: Arguments) -> Tensor:
    away = t.emit("Add", binary(t, "Sub", a["x1"], a["x2"]), t.scalar(a.number("eps", 1e-6)))
    wishes = {"self": away, "p": a.get("p"), "dim": [-1], "keepdim": a.flag("keepdim")}
    return _norm(t, Arguments(wishes))


@operator("cdist", "_cdist_forward", becomes="Abs Pow ReduceL1 ReduceL2 ReduceMax ReduceSum Reshape Sub")
def _cdist(t: Translation, a: Arguments) -> Tensor:
    one, other = a.tensor("x1"), a.tensor("x2")
    rows = t.reshape(one, (*one.shape[:-1], 1, one.shape[-1]))
    columns = t.reshape(other, (*other.shape[:-2], 1, *other.shape[-2:]))
    return _norm(t, Arguments({"self": t.emit("Sub", rows, columns), "p": a.get("p"), "dim": [-1], "keepdim": False}))
