"""The part of TorchScript that is plain Python: numbers, lists, dictionaries, text, and questions about tensors."""

from __future__ import annotations

import math
import operator as python
from collections.abc import Callable
from typing import Any

from engine.frontends.pytorch import eager
from engine.frontends.pytorch.program import Step
from engine.frontends.pytorch.values import FLOATS, NUMBERS, SCALAR_TYPES, Record, Refused, Tensor, Unknown

_LONGEST = 1 << 20
MUTATING = {
    "prim::SetAttr",
    *(f"aten::{name}" for name in ("append", "extend", "insert", "pop", "clear", "reverse", "update", "sort")),
    "aten::_set_item",
    "aten::Delete",
}
"""Operators that change a list, a dictionary or an object."""
_TRUE_KEEPERS = {
    "prim::ListConstruct",
    "prim::TupleConstruct",
    "prim::DictConstruct",
    "prim::TupleUnpack",
    "prim::ListUnpack",
    "prim::TupleIndex",
    "prim::Uninitialized",
    "prim::unchecked_cast",
    "prim::unchecked_unwrap_optional",
    "prim::Print",
    "prim::device",
    "aten::append",
    "aten::__getitem__",
    "aten::__isnot__",
    "aten::__is__",
    "aten::_set_item",
    "aten::len",
    "aten::slice",
    "aten::warn",
}


def keeps(kind: str) -> bool:
    """Whether the operator only hands values on, so that one that is unknown may be among them."""
    return kind in _TRUE_KEEPERS


def builds(kind: str) -> bool:
    """Whether the operator makes a list, tuple or dictionary of its inputs."""
    return kind in ("prim::ListConstruct", "prim::TupleConstruct", "prim::DictConstruct", "prim::NamedTupleConstruct")


def knows(kind: str) -> bool:
    """Whether the operator is of those here."""
    return kind in _STRUCTURE or kind in _ABOUT_TENSORS or kind in _NUMBERS


def compute(step: Step, inputs: list[Any], tensors: list[Tensor]) -> list[Any] | None:
    """The results of an operator on plain values, or of one that only asks about tensors; None where it is neither."""
    structure = _STRUCTURE.get(step.kind)
    if structure is not None and (step.kind not in _ONLY_LISTS or isinstance(inputs[0], (list, tuple, str, dict))):
        return structure(step, inputs)
    about = _ABOUT_TENSORS.get(step.kind)
    if about is not None:
        return [about(*inputs)]
    number = _NUMBERS.get(step.kind)
    if number is None or any(isinstance(one, Tensor) for one in inputs) or (tensors and step.kind not in _LIST_NUMBERS):
        return None
    return [number(*inputs)]


def _checked(value: Any) -> Any:
    if isinstance(value, (list, str, tuple)) and len(value) > _LONGEST:
        raise Refused(f"makes a list of {len(value)} elements")
    return value


def _unpack(step: Step, inputs: list[Any]) -> list[Any]:
    if isinstance(inputs[0], Unknown):
        return [inputs[0]] * len(step.outputs)
    if len(inputs[0]) != len(step.outputs):
        raise Refused(f"takes {len(inputs[0])} values for {len(step.outputs)}")
    return list(inputs[0])


def _raise(step: Step, inputs: list[Any]) -> list[Any]:
    raise Refused(f"the model itself raises an error for these inputs: {str(inputs[0])[:200]}", "do the sizes fit it?")


def _append(step: Step, inputs: list[Any]) -> list[Any]:
    inputs[0].append(inputs[1])
    return [_checked(inputs[0])] * len(step.outputs)


def _set_item(step: Step, inputs: list[Any]) -> list[Any]:
    if isinstance(inputs[0], Unknown):
        return [inputs[0]] * len(step.outputs)
    inputs[0][_key(inputs[1]) if isinstance(inputs[0], dict) else inputs[1]] = inputs[2]
    return [inputs[0]] * len(step.outputs)


def _get_item(step: Step, inputs: list[Any]) -> list[Any]:
    if isinstance(inputs[0], Unknown) or isinstance(inputs[1], Unknown):
        return [Unknown()]
    return [inputs[0][_key(inputs[1]) if isinstance(inputs[0], dict) else inputs[1]]]


def _key(value: Any) -> Any:
    return value.content.item() if isinstance(value, Tensor) and value.is_constant else value


def _delete(step: Step, inputs: list[Any]) -> list[Any]:
    del inputs[0][_key(inputs[1])]
    return [None] * len(step.outputs)


def _in_place(method: str) -> Callable[[Step, list[Any]], list[Any]]:
    def call(step: Step, inputs: list[Any]) -> list[Any]:
        result = getattr(inputs[0], method)(*inputs[1:])
        _checked(inputs[0])
        return [inputs[0] if result is None else result] * len(step.outputs)

    return call


def _slice(step: Step, inputs: list[Any]) -> list[Any]:
    items, start, end, by = (*inputs, None, None, None)[:4]
    return [items[slice(start, end, by if by is not None else 1)]]


def _is_instance(step: Step, inputs: list[Any]) -> list[Any]:
    raise Refused(f"asks for the type of a {type(inputs[0]).__name__}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (bool, int, float, str)) and isinstance(other, (bool, int, float, str)):
        return one == other
    return one is other


_STRUCTURE: dict[str, Callable[[Step, list[Any]], list[Any]]] = {
    "prim::ListConstruct": lambda step, a: [list(a)],
    "prim::TupleConstruct": lambda step, a: [tuple(a)],
    "prim::NamedTupleConstruct": lambda step, a: [tuple(a)],
    "prim::DictConstruct": lambda step, a: [{_key(a[i]): a[i + 1] for i in range(0, len(a), 2)}],
    "prim::ListUnpack": _unpack,
    "prim::TupleUnpack": _unpack,
    "prim::TupleIndex": lambda step, a: [a[0] if isinstance(a[0], Unknown) else a[0][a[1]]],
    "prim::TupleSlice": lambda step, a: [a[0][step.constant]],
    "prim::RaiseException": _raise,
    "prim::Enter": lambda step, a: [a[0]],
    "prim::Exit": lambda step, a: [None] * len(step.outputs),
    "aten::set_grad_enabled": lambda step, a: [None] * len(step.outputs),
    "aten::Delete": _delete,
    "prim::Uninitialized": lambda step, a: [Unknown("is not set")],
    "prim::unchecked_cast": lambda step, a: [a[0]],
    "prim::unchecked_unwrap_optional": lambda step, a: [a[0]],
    "prim::rangelist": lambda step, a: [_checked(list(range(min(a[0], _LONGEST + 1))))],
    "prim::Print": lambda step, a: [],
    "prim::isinstance": _is_instance,
    "prim::data": lambda step, a: [a[0]],
    "aten::warn": lambda step, a: [],
    "aten::manual_seed": lambda step, a: [],
    "prim::profile": lambda step, a: [a[0]] if step.outputs else [],
    "aten::append": _append,
    "aten::_set_item": _set_item,
    "aten::__getitem__": _get_item,
    "aten::extend": _in_place("extend"),
    "aten::insert": _in_place("insert"),
    "aten::pop": _in_place("pop"),
    "aten::clear": _in_place("clear"),
    "aten::reverse": _in_place("reverse"),
    "aten::update": _in_place("update"),
    "aten::sort": _in_place("sort"),
    "aten::slice": _slice,
    "aten::keys": lambda step, a: [list(a[0].keys())],
    "aten::values": lambda step, a: [list(a[0].values())],
    "aten::items": lambda step, a: [list(a[0].items())],
    "aten::get": lambda step, a: [a[0].get(_key(a[1]), a[2] if len(a) > 2 else None)],
    "aten::setdefault": lambda step, a: [a[0].setdefault(_key(a[1]), a[2])],
    "aten::sorted": lambda step, a: [sorted(a[0])],
    "aten::copy": lambda step, a: [a[0].copy()],
    "aten::list": lambda step, a: [list(a[0])],
    "aten::dict": lambda step, a: [dict(a[0]) if a else {}],
    "aten::index": lambda step, a: [a[0].index(a[1])],
    "aten::count": lambda step, a: [a[0].count(a[1])],
    "aten::len": lambda step, a: [len(a[0])],
    "aten::__contains__": lambda step, a: [_key(a[1]) in a[0]],
    "aten::__is__": lambda step, a: [_same(a[0], a[1])],
    "aten::__isnot__": lambda step, a: [not _same(a[0], a[1])],
    "aten::mul": lambda step, a: [_repeated(a[0], a[1])],
    "aten::add": lambda step, a: [_checked(a[0] + a[1])],
    "aten::add_": lambda step, a: _in_place("extend")(step, a),
    "aten::eq": lambda step, a: [a[0] == a[1]],
    "aten::ne": lambda step, a: [a[0] != a[1]],
    "aten::format": lambda step, a: [_format(a)],
}
_ONLY_LISTS = {
    "aten::slice",
    "aten::index",
    "aten::len",
    "aten::mul",
    "aten::add",
    "aten::add_",
    "aten::eq",
    "aten::ne",
    "aten::sort",
    "aten::count",
    "aten::copy",
    "aten::format",
    "aten::values",
}


def _repeated(items: Any, times: int) -> Any:
    if len(items) * max(times, 0) > _LONGEST:
        raise Refused(f"makes a list of {len(items) * times} elements")
    return items * times


def _format(a: list[Any]) -> str:
    return str(a[0])[:1000] + " " + ", ".join(str(one)[:100] for one in a[1:])


def _size(tensor: Tensor, dim: int | None = None) -> Any:
    if not isinstance(tensor, Tensor):
        raise Refused("asks for the size of something that is no tensor")
    return list(tensor.shape) if dim is None else tensor.shape[dim]


def _item(value: Any) -> Any:
    if isinstance(value, Tensor):
        if not value.is_constant:
            raise Refused("depends on data that is known at run time only")
        if value.content.numel() != 1:
            raise Refused("takes the number of a tensor that has several")
        return value.content.item()
    return value


def _text_to_float(value: Any) -> float:
    return float(_item(value))


def _dtype(tensor: Tensor) -> int:
    content = tensor.content
    if eager.is_tensor(content):
        return NUMBERS[str(content.dtype).removeprefix("torch.")]
    if tensor.grid is not None:
        return NUMBERS[{"uint8": "quint8", "int8": "qint8", "int32": "qint32"}[tensor.grid.dtype]]
    name = tensor.dtype.name.lower()
    return NUMBERS[{"float": "float32"}.get(name, name)]


def _tensor(data: Any, dtype: int | None) -> Tensor:
    """A constant of a number or nested lists of them; whole numbers are int64, others float32."""
    if isinstance(data, Tensor):
        if dtype is not None and SCALAR_TYPES.get(dtype) != str(getattr(data.content, "dtype", "")).partition(".")[2]:
            raise Refused("makes a tensor of another type from one")
        return data
    kind = None if dtype is None else getattr(eager.torch(), SCALAR_TYPES.get(dtype, ""), None)
    try:
        return Tensor(eager.torch().tensor(_numbers(data), dtype=kind))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Refused(f"makes a tensor of something else: {error}") from error


def _numbers(data: Any) -> Any:
    return [_numbers(one) for one in data] if isinstance(data, (list, tuple)) else _item(data)


def _elements(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


def _grid(tensor: Tensor, what: str) -> Any:
    if tensor.is_constant and tensor.content.is_quantized:
        return tensor.content.q_scale() if what == "scale" else tensor.content.q_zero_point()
    if tensor.grid is None:
        raise Refused("asks for the scale of a tensor that is not quantized")
    return tensor.grid.scale if what == "scale" else tensor.grid.zero_point


_ABOUT_TENSORS: dict[str, Callable[..., Any]] = {
    "aten::size": _size,
    "prim::shape": _size,
    "aten::dim": lambda x: x.rank,
    "aten::ndimension": lambda x: x.rank,
    "prim::ndim": lambda x: x.rank,
    "aten::numel": _elements,
    "aten::len": lambda x: x.shape[0] if isinstance(x, Tensor) else len(x),
    "aten::Int": lambda x: int(_item(x)),
    "aten::Float": _text_to_float,
    "aten::Bool": lambda x: bool(_item(x)),
    "aten::item": _item,
    "aten::ScalarImplicit": _item,
    "aten::IntImplicit": lambda x: int(_item(x)),
    "aten::FloatImplicit": _text_to_float,
    "aten::is_nonzero": lambda x: bool(_item(x)),
    "prim::ImplicitTensorToNum": _item,
    "prim::NumToTensor": lambda x: Tensor(eager.torch().tensor(x)),
    "prim::tolist": _item,
    "prim::dtype": _dtype,
    "prim::layout": lambda x: 0,
    "prim::type": lambda x: str(getattr(x, "type", "cpu")),
    "prim::index": lambda x: None,
    "aten::tensor": lambda data, dtype, *rest: _tensor(data, dtype),
    "aten::as_tensor": lambda data, dtype, *rest: _tensor(data, dtype),
    "prim::device": lambda x: eager.torch().device("cpu"),
    "prim::requires_grad": lambda x: False,
    "prim::is_cuda": lambda x: False,
    "prim::is_cpu": lambda x: True,
    "prim::is_quantized": lambda x: x.grid is not None or (x.is_constant and x.content.is_quantized),
    "prim::is_mkldnn": lambda x: False,
    "prim::is_meta": lambda x: False,
    "prim::is_sparse": lambda x: False,
    "prim::is_xpu": lambda x: False,
    "prim::is_mps": lambda x: False,
    "prim::is_nested": lambda x: False,
    "aten::is_floating_point": lambda x: x.is_float,
    "aten::is_complex": lambda x: False,
    "aten::is_contiguous": lambda *x: True,
    "aten::is_pinned": lambda *x: False,
    "aten::is_grad_enabled": lambda: False,
    "aten::is_autocast_enabled": lambda: False,
    "aten::is_autocast_cpu_enabled": lambda: False,
    "aten::is_scripting": lambda: True,
    "aten::storage_offset": lambda x: 0,
    "aten::q_scale": lambda x: _grid(x, "scale"),
    "aten::q_zero_point": lambda x: _grid(x, "zero_point"),
    "aten::get_device": lambda x: -1,
}


def _bounded_power(base: float, exponent: float) -> float:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent > 64:
        raise Refused(f"computes {base} to the power of {exponent}")
    return float(base) ** exponent if exponent < 0 else base**exponent  # type: ignore[no-any-return]


def _shift(base: int, by: int) -> int:
    if not 0 <= by < 64:
        raise Refused(f"shifts by {by}")
    return base << by


def _rounded(value: float, digits: int | None = None) -> Any:
    return round(value) if digits is None else round(value, digits)


def _extreme(choose: Callable[..., Any]) -> Callable[..., Any]:
    def pick(*values: Any) -> Any:
        if len(values) == 2 and isinstance(values[0], list) and isinstance(values[1], list):
            return choose(values)
        return choose(*values)

    return pick


_NUMBERS: dict[str, Callable[..., Any]] = {
    "aten::add": lambda a, b, alpha=1: a + b * alpha if alpha != 1 else a + b,
    "aten::sub": lambda a, b, alpha=1: a - b * alpha,
    "aten::mul": python.mul,
    "aten::div": python.truediv,
    "aten::floordiv": python.floordiv,
    "aten::floor_divide": python.floordiv,
    "aten::remainder": python.mod,
    "aten::fmod": math.fmod,
    "aten::mod": python.mod,
    "aten::divmod": divmod,
    "aten::neg": python.neg,
    "aten::__range_length": lambda start, end, by: len(range(start, end, by)),
    "aten::__derive_index": lambda index, start, by: start + index * by,
    "aten::__round_to_zero_floordiv": lambda a, b: int(a / b),
    "aten::join": lambda a, b: _checked(a.join(b)),
    "aten::split": lambda a, b=None, most=-1: a.split(b, most),
    "aten::replace": lambda a, b, c, most=-1: _checked(a.replace(b, c, most)),
    "aten::isdigit": lambda a: a.isdigit(),
    "prim::StringIndex": lambda a, b: a[b],
    "aten::pow": _bounded_power,
    "aten::abs": abs,
    "prim::abs": abs,
    "aten::ceil": math.ceil,
    "aten::floor": math.floor,
    "aten::round": _rounded,
    "aten::sqrt": math.sqrt,
    "aten::exp": math.exp,
    "aten::log": math.log,
    "aten::log2": math.log2,
    "aten::log10": math.log10,
    "aten::sin": math.sin,
    "aten::cos": math.cos,
    "aten::tan": math.tan,
    "aten::tanh": math.tanh,
    "aten::atan": math.atan,
    "aten::eq": python.eq,
    "aten::ne": python.ne,
    "aten::lt": python.lt,
    "aten::le": python.le,
    "aten::gt": python.gt,
    "aten::ge": python.ge,
    "aten::__and__": lambda a, b: a & b,
    "aten::__or__": lambda a, b: a | b,
    "aten::__xor__": lambda a, b: a ^ b,
    "aten::__not__": python.not_,
    "aten::__lshift__": _shift,
    "aten::__rshift__": python.rshift,
    "prim::min": _extreme(min),
    "prim::max": _extreme(max),
    "aten::sum": sum,
    "aten::all": all,
    "aten::any": any,
    "aten::str": lambda a: str(a)[:1000],
    "aten::lower": lambda a: a.lower(),
    "aten::upper": lambda a: a.upper(),
    "aten::strip": lambda a, b=None: a.strip(b),
    "aten::startswith": lambda a, b, *rest: a.startswith(b),
    "aten::endswith": lambda a, b, *rest: a.endswith(b),
    "aten::find": lambda a, b, *rest: a.find(b),
    "aten::isinf": math.isinf,
    "aten::isnan": math.isnan,
    "aten::is_floating_point": lambda a: isinstance(a, float),
    "aten::device": lambda *a: eager.torch().device("cpu"),
    "aten::promote_types": lambda a, b: max(a, b),
    "aten::dtype_is_float": lambda a: a in FLOATS,
    "aten::hash": lambda a: 0,
    "prim::AutogradZero": lambda: None,
}
_LIST_NUMBERS = {"prim::min", "prim::max"}

__all__ = ["Record", "compute", "keeps", "knows"]
