"""The table beside the graph: one row of quantization parameters a tensor, and the wishes of a person.

Written and read in the toolkit's cfg format (YAML); `{model}.quantization.cfg` is this table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import yaml

from engine.errors import QuantizationError

_KEYS = ("qtype", "qmethod", "dtype", "min", "max", "scale", "zero_point", "ori_min", "ori_max")
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

    def quantizer(self, tensor: str) -> Row | None:
        """The row that says how `tensor` is put on an integer grid, or None if it never is."""
        for name in (tensor, twin_int8(tensor)):
            row = self.rows.get(name)
            if row is not None and row.dtype in ("int8", "int16"):
                return row
        return None

    def precision(self, tensor: str) -> str:
        """What `tensor` is stored as: 'int8', 'int16', 'float16', or '' where it has no row (integers)."""
        row = self.rows.get(tensor)
        if row is None:
            return ""
        if row.dtype == "float32":
            quantized = self.rows.get(twin_int8(tensor))
            return quantized.dtype if quantized is not None else "float16"
        return row.dtype


def twin_int8(tensor: str) -> str:
    """The name of the quantized copy of a float tensor."""
    return f"{tensor}_int8"


def twin_float16(tensor: str) -> str:
    """The name of the float16 copy of a quantized tensor."""
    return f"{tensor}__float16"


CfgValue: TypeAlias = "str | list[float] | list[int]"


def to_cfg(table: Table) -> str:
    """The table as cfg text: four spaces, dash and three spaces, floats in full, `[]` for float rows."""
    lines = []
    if table.wishes:
        lines.append("custom_quantize_layers:")
        lines += [f"    {_key(name)}: {precision}" for name, precision in table.wishes.items()]
    else:
        lines.append("custom_quantize_layers: {}")
    lines.append("quantize_parameters:" if table.rows else "quantize_parameters: {}")
    for name, row in table.rows.items():
        lines.append(f"    {_key(name)}:")
        lines += [f"        qtype: {row.qtype}", f"        qmethod: {row.qmethod}", f"        dtype: {row.dtype}"]
        for key in _KEYS[3:]:
            value = getattr(row, key)
            lines += [f"        {key}: []"] if value is None else [f"        {key}:", f"        -   {value!r}"]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    """`name` as a YAML key, quoted only where plain text would be read as something else."""
    text: str = yaml.safe_dump({name: 0}, allow_unicode=True, width=1 << 30)
    return text[: text.rindex(": 0")]


def from_cfg(text: str, *, where: str = "cfg") -> Table:
    """The table in cfg text. Raises QuantizationError naming line and column, or the row and key, that is wrong."""
    if len(text) > LARGEST_CFG:
        raise QuantizationError("is too large for a cfg", where=where)
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where} line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise QuantizationError(f"is not YAML: {getattr(error, 'problem', error)}", where=place) from error
    except RecursionError as error:
        raise QuantizationError("is nested too deeply for a cfg", where=where) from error
    if not isinstance(data, dict):
        raise QuantizationError(
            "holds no mapping", where=where, hint="expected custom_quantize_layers and quantize_parameters"
        )
    wishes = _mapping(data, "custom_quantize_layers", where)
    rows = _mapping(data, "quantize_parameters", where)
    table = Table(wishes={str(name): str(value) for name, value in wishes.items()})
    for name, fields in rows.items():
        table.rows[str(name)] = _row(fields, f"{where}: {name}")
    return table


def _mapping(data: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise QuantizationError(f"{key} is not a mapping", where=where)
    return value


def _row(fields: Any, where: str) -> Row:
    if not isinstance(fields, dict):
        raise QuantizationError("is not a mapping of quantization parameters", where=where)
    values: dict[str, Any] = {}
    for key in _KEYS:
        value = fields.get(key)
        if key in ("qtype", "qmethod", "dtype"):
            if not isinstance(value, str):
                raise QuantizationError(f"{key} is {value!r}, expected text", where=where)
            values[key] = value
            continue
        numbers = value if isinstance(value, list) else [value]
        if numbers in ([], [None]):
            values[key] = None
        elif len(numbers) == 1 and isinstance(numbers[0], (int, float)) and not isinstance(numbers[0], bool):
            values[key] = int(numbers[0]) if key == "zero_point" else float(numbers[0])
        else:
            raise QuantizationError(f"{key} is {value!r}, expected a list of one number", where=where)
    for key in ("min", "max", "ori_min", "ori_max"):
        values[key] = math.nan if values[key] is None else values[key]
    integer = values["dtype"] in ("int8", "int16", "int32")
    if integer and (values["scale"] is None or not 0 < values["scale"] < math.inf or values["zero_point"] is None):
        raise QuantizationError("an integer row needs a scale above 0 and a zero point", where=where)
    return Row(**values)


def changed(table: Table, rows: Iterable[tuple[str, Row]]) -> Table:
    """A copy of `table` with some rows replaced or added."""
    return Table({**table.rows, **dict(rows)}, dict(table.wishes))
