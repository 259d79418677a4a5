"""The table beside the graph: one row of quantization parameters a tensor, and the wishes of a person.

Written and read in the toolkit's cfg format (YAML); `{model}.quantization.cfg` is this table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from engine.errors import QuantizationError
from engine.quantization.cfg_text import Entry, read_yaml, written_comment, written_key, written_number
from engine.quantization.parameters import LIMITS, asymmetric

WISHES, PARAMETERS = "custom_quantize_layers", "quantize_parameters"
KEYS = ("qtype", "qmethod", "dtype", "min", "max", "scale", "zero_point", "ori_min", "ori_max")
_DTYPES = (*LIMITS, "float16", "float32")
# The precisions in which a tensor lies on an integer grid between layers.
GRIDS = ("int8", "int16")
# Scales become float32 when they are used.
_LARGEST_SCALE = 3.4028234663852886e38
# A row is a few hundred bytes; the largest real models have some thousand tensors.
LARGEST_CFG = 64 << 20


@dataclasses.dataclass(frozen=True)
class Row:
    """Parameters of one tensor.

    dtype: 'int8', 'int16', 'int32', 'float16' or 'float32' (a model input or output under its own name).
    min, max: the range in use; ori_min, ori_max: the range that calibration saw. scale is a double and > 0;
    scale and zero_point are None for float rows.
    """

    dtype: str
    min: float
    max: float
    scale: float | None = None
    zero_point: int | None = None
    ori_min: float = math.nan
    ori_max: float = math.nan
    qtype: str = "asym"
    qmethod: str = "layer"


@dataclasses.dataclass
class Table:
    """Rows by tensor name in the cfg's order, and `wishes`: tensor name -> precision, from custom_quantize_layers."""

    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    wishes: dict[str, str] = dataclasses.field(default_factory=dict)

    def quantizer(self, tensor: str, precision: str = "") -> Row | None:
        """The row that puts `tensor` on the grid of `precision`, by default what it is stored as.

        None where that is no grid ('int8' or 'int16'), or the tensor was never calibrated. A grid other than the
        calibrated one spans the same range.
        """
        precision = precision or self.precision(tensor)
        if precision not in GRIDS:
            return None
        row = next((r for n in (tensor, *_twins(tensor)) if (r := self.rows.get(n)) and r.dtype in GRIDS), None)
        if row is None:
            row = self.rows.get(tensor)
            if row is None or not math.isfinite(row.max - row.min) or row.min == row.max == 0.0:
                return None
        elif row.dtype == precision:
            return row
        low, high = row.min, row.max
        if row.scale is not None and row.zero_point is not None and not math.isfinite(high - low):
            # A cfg may leave out the range, or write one without ends; the grid has one.
            low, high = ((end - row.zero_point) * row.scale for end in LIMITS[row.dtype])
        scale, zero_point = asymmetric(low, high, precision)
        return dataclasses.replace(row, dtype=precision, scale=scale, zero_point=zero_point)

    def precision(self, tensor: str) -> str:
        """What `tensor` is stored as: 'int8', 'int16', 'float16', or '' where it has no row (integers).

        A wish goes before what calibration chose.
        """
        return self.wishes.get(tensor) or self.calibrated(tensor)

    def calibrated(self, tensor: str) -> str:
        """What `tensor` would be stored as without wishes, in the words of `precision`."""
        row = self.rows.get(tensor)
        if row is None:
            return ""
        if row.dtype == "float32":
            return next((self.rows[name].dtype for name in _twins(tensor) if name in self.rows), "float16")
        return row.dtype


def twin(tensor: str, precision: str) -> str:
    """The name of the copy of a float tensor on the grid of `precision`, 'int8' or 'int16'."""
    return f"{tensor}_{precision}"


def _twins(tensor: str) -> tuple[str, ...]:
    return tuple(twin(tensor, precision) for precision in GRIDS)


def twin_float16(tensor: str) -> str:
    """The name of the float16 copy of a quantized tensor."""
    return f"{tensor}__float16"


def to_cfg(table: Table, remarks: Sequence[str] = ()) -> str:
    """The table as cfg text: four spaces, dash and three spaces, floats in full, `[]` for float rows.

    Each of `remarks` becomes a line of comment at the top.
    """
    lines = [written_comment(remark) for remark in remarks]
    if table.wishes:
        lines.append(f"{WISHES}:")
        lines += [f"{written_key(name)} {precision}" for name, precision in table.wishes.items()]
    else:
        lines.append(f"{WISHES}: {{}}")
    lines.append(f"{PARAMETERS}:" if table.rows else f"{PARAMETERS}: {{}}")
    for name, row in table.rows.items():
        lines.append(written_key(name))
        lines += [f"        qtype: {row.qtype}", f"        qmethod: {row.qmethod}", f"        dtype: {row.dtype}"]
        for key in KEYS[3:]:
            value = getattr(row, key)
            lines += (
                [f"        {key}: []"] if value is None else [f"        {key}:", f"        -   {written_number(value)}"]
            )
    return "\n".join(lines) + "\n"


def from_cfg(text: str, *, where: str = "cfg") -> Table:
    """The table in cfg text, anchors and aliases included; unknown keys are passed over.

    Raises QuantizationError naming the line and column of what is wrong.
    """
    top = read_sections(text, where)
    table = Table()
    for name, entry in section(top, WISHES).items():
        table.wishes[name] = wish_of(name, entry)
    for name, entry in section(top, PARAMETERS).items():
        table.rows[name] = _row(name, entry)
    return table


def read_sections(text: str, where: str) -> dict[str, Entry]:
    """The top level of a cfg. Raises QuantizationError naming the place of what is no YAML, or no mapping."""
    if len(text) > LARGEST_CFG:
        raise QuantizationError("is too large for a cfg", where=where)
    top = read_yaml(text, where)
    if not isinstance(top.content, dict):
        raise QuantizationError("holds no mapping", where=top.where, hint=f"expected {WISHES} and {PARAMETERS}")
    return top.content


def section(top: dict[str, Entry], key: str) -> dict[str, Entry]:
    """The entries below one of the two keys; none where it is missing or empty. Raises QuantizationError."""
    entry = top.get(key)
    if entry is None or entry.empty:
        return {}
    if not isinstance(entry.content, dict):
        raise QuantizationError(f"{key} is not a mapping", where=entry.where)
    return entry.content


def wish_of(name: str, entry: Entry) -> str:
    """The precision in a line of custom_quantize_layers. Raises QuantizationError."""
    if not isinstance(entry.content, str) or entry.empty:
        raise QuantizationError(f"{name!r} is given no precision", where=entry.where, hint="write NAME: float16")
    return entry.content


def _row(name: str, entry: Entry) -> Row:
    fields = entry.content
    if not isinstance(fields, dict):
        raise QuantizationError(f"{name!r} is not a mapping of quantization parameters", where=entry.where)
    words: dict[str, str] = {}
    for key in KEYS[:3]:
        word = fields.get(key)
        if word is None or word.empty or not isinstance(word.content, str):
            raise QuantizationError(f"{name!r} has no {key}", where=(word or entry).where)
        words[key] = word.content
    dtype = words["dtype"]
    if dtype not in _DTYPES:
        raise QuantizationError(
            f"{name!r} has dtype {dtype[:40]!r}", where=fields["dtype"].where, hint=f"use {', '.join(_DTYPES)}"
        )
    numbers = {key: number_of(name, key, fields.get(key)) for key in KEYS[3:]}
    zero_point = numbers["zero_point"]
    if zero_point is not None and not zero_point.is_integer():
        raise QuantizationError(f"{name!r} has a zero_point that is not whole", where=fields["zero_point"].where)
    if dtype in LIMITS:
        smallest, largest = LIMITS[dtype]
        scale = numbers["scale"]
        if scale is None or not 0 < scale <= _LARGEST_SCALE or zero_point is None:
            raise QuantizationError(
                f"{name!r} is {dtype} and needs a scale above 0 and a zero point", where=entry.where
            )
        if not smallest <= zero_point <= largest:
            raise QuantizationError(
                f"{name!r} has zero_point {zero_point:g}, outside of {dtype}", where=fields["zero_point"].where
            )
    low, high, seen_low, seen_high = (
        math.nan if numbers[key] is None else float(numbers[key] or 0.0) for key in ("min", "max", "ori_min", "ori_max")
    )
    zero = None if zero_point is None else int(zero_point)
    return Row(dtype, low, high, numbers["scale"], zero, seen_low, seen_high, words["qtype"], words["qmethod"])


def number_of(name: str, key: str, entry: Entry | None) -> float | None:
    """The number in a list of one, or alone; None for an empty list or a missing key. Raises QuantizationError."""
    if entry is None or entry.empty:
        return None
    items = entry.content if isinstance(entry.content, list) else [entry]
    if not items:
        return None
    number = items[0].number() if len(items) == 1 else None
    if number is None:
        raise QuantizationError(f"{name!r} has a {key} that is not a list of one number", where=entry.where)
    return number


def changed(table: Table, rows: Iterable[tuple[str, Row]]) -> Table:
    """A copy of `table` with some rows replaced or added."""
    return Table({**table.rows, **dict(rows)}, dict(table.wishes))
