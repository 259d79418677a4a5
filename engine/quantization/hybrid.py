"""Hybrid quantization: what an edited cfg asks of the model that it was written for, checked line by line."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import yaml

from engine.errors import QuantizationError, nearest
from engine.quantization.cfg_text import BYTE_ORDER_MARK, Entry, Place, written_number
from engine.quantization.edits import Edits, Range, check_wish, edited, row_of, with_range
from engine.quantization.quantized import Quantized
from engine.quantization.table import (
    GRIDS,
    KEYS,
    PARAMETERS,
    WISHES,
    Row,
    number_of,
    read_sections,
    section,
    wish_of,
)
from engine.targets import Target

# A scale follows the range, so that a cfg may hold it as it was or as it becomes.
_FOLLOWING = ("scale", "zero_point")
_MOST_FAULTS = 20
# What other programs leave of a number that they read and write again; nothing that float32 could tell apart.
_SAME = 1e-6
_LARGEST = float(np.finfo(np.float32).max)


def apply_cfg(base: Quantized, text: str, target: Target, *, where: str = "cfg") -> Quantized:
    """`base` with the wishes and ranges that the cfg `text` asks for; wishes of its own are replaced.

    A row or key that the cfg leaves out stays as in `base`, and unknown keys are passed over. Of a row only min and max
    may differ: scale and zero point follow them, whether the cfg holds the old or the new ones.

    Raises one QuantizationError that tells of every line that cannot be used, in order, up to 20 of them.
    """
    edits, faults = read_edits(base, text, target, where=where)
    if len(faults) == 1:
        raise faults[0].error
    if faults:
        lines = [str(fault.error) for fault in faults[:_MOST_FAULTS]]
        if len(faults) > len(lines):
            lines.append(f"… and {len(faults) - len(lines)} more")
        raise QuantizationError("\n  ".join([f"has {len(faults)} faults", *lines]), where=where)
    return edited(base, edits, target)


class CfgFault(NamedTuple):
    """An error in a cfg, and the line and column that it tells of; 0 where it tells of the text as a whole."""

    line: int
    column: int
    error: QuantizationError


def read_edits(base: Quantized, text: str, target: Target, *, where: str = "cfg") -> tuple[Edits, list[CfgFault]]:
    """What the cfg `text` asks of `base`, as far as it can be used, and what cannot be, in the order of its lines.

    Of the rows, those whose min or max differ from what `base` has are in the edits. Raises nothing.
    """
    faults = _Faults()
    wishes: dict[str, str] = {}
    ranges: dict[str, Range] = {}
    try:
        top = read_sections(text, where)
    except QuantizationError as error:
        return Edits(), [_fault(error, where, text)]
    for name, entry in top.items():
        with faults.kept(entry):
            _check_section(base, name, entry)
    for name, entry in faults.section(top, WISHES).items():
        with faults.kept(entry):
            precision = wish_of(name, entry)
            # A precision that the target lacks is wrong where it stands, all else at the name.
            place = entry.key_where if precision in target.precisions else entry.where
            check_wish(base, name, precision, target, where=f"{place}: {name!r}")
            wishes[name] = precision
    for name, entry in faults.section(top, PARAMETERS).items():
        with faults.kept(entry):
            row = base.table.rows.get(name)
            if row is None:
                raise QuantizationError(
                    f"the model has no row {name!r}", where=entry.key_where, hint=nearest(name, base.table.rows)
                )
            changed = _check_row(base, name, row, entry, faults)
            if changed is not row:
                ranges[name] = (changed.min, changed.max)
    return Edits(wishes, ranges), [_fault(error, where, text) for error in faults.in_order()]


def _check_section(base: Quantized, name: str, entry: Entry) -> None:
    """Refuse a line of the top level that was meant for a section, or to be one; others are passed over, as the toolkit
    does."""
    if name in (WISHES, PARAMETERS):
        return
    if name in base.table.rows or name in base.makers:
        raise QuantizationError(
            f"{name!r} stands outside of {WISHES}", where=entry.key_where, hint=f"indent it below {WISHES}"
        )
    meant = difflib.get_close_matches(name, (WISHES, PARAMETERS), n=1, cutoff=0.8)
    if meant:
        raise QuantizationError(
            f"there is no section {name!r}", where=entry.key_where, hint=f"did you mean {meant[0]}?"
        )


def fault_message(error: QuantizationError, where: str = "cfg") -> str:
    """What is wrong and what to do, without the place in the text `where`."""
    what = error.what.partition("\n")[0]
    rest = re.sub(rf"\A{re.escape(where)}(?: line \d+, column \d+)?(?:: )?", "", error.where)
    text = f"{rest}: {what}" if rest else what
    return f"{text} ({error.hint})" if error.hint else text


def _fault(error: QuantizationError, where: str, text: str) -> CfgFault:
    place = re.match(rf"{re.escape(where)} line (\d+), column (\d+)", error.where)
    if place:
        return CfgFault(int(place[1]), int(place[2]), error)
    before = _before_unreadable(error.__cause__, text.removeprefix(BYTE_ORDER_MARK))
    if before is None:
        return CfgFault(0, 0, error)
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", before)
    return CfgFault(len(lines), len(lines[-1]) + 1, error)


def _before_unreadable(cause: BaseException | None, text: str) -> str | None:
    """What stands before a character that no YAML may hold, of which only the position is told."""
    if isinstance(cause, UnicodeEncodeError):
        return text[: cause.start]
    if not isinstance(cause, yaml.reader.ReaderError):
        return None
    if not hasattr(yaml, "CSafeLoader"):
        return text[: cause.position]
    return text.encode()[: cause.position].decode(errors="ignore")  # in C, bytes are counted


class _Faults:
    """Errors with the places that they belong to, kept until all are known."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, QuantizationError]] = []

    @contextlib.contextmanager
    def kept(self, entry: Entry) -> Iterator[None]:
        """Keep an error in the block for later."""
        try:
            yield
        except QuantizationError as error:
            self._found.append((entry.key or entry.place, error))

    def section(self, top: dict[str, Entry], key: str) -> dict[str, Entry]:
        """The entries below `key`; none if it has something else."""
        if key in top:
            with self.kept(top[key]):
                return section(top, key)
        return {}

    def in_order(self) -> list[QuantizationError]:
        """The errors by the places that they belong to."""
        return [error for _, error in sorted(self._found, key=lambda item: item[0])]


def _check_row(base: Quantized, name: str, row: Row, entry: Entry, faults: _Faults) -> Row:
    """The row as the cfg has it; what is wrong in its keys goes to `faults`."""
    if entry.empty:
        return row
    if not isinstance(entry.content, dict):
        hint = f"precisions are wished for in {WISHES}" if entry.content in (*GRIDS, "float16") else ""
        raise QuantizationError(f"{name!r} is not a mapping of quantization parameters", where=entry.where, hint=hint)
    fields = {key: field for key, field in entry.content.items() if key in KEYS and not field.empty}
    changed = row
    ends = {"min": row.min, "max": row.max}
    for key in ends.keys() & fields.keys():
        with faults.kept(fields[key]):
            ends[key] = _end(name, key, fields[key], row)
    edited_ends = [key for key, end in ends.items() if not _equal(end, getattr(row, key))]
    if edited_ends:
        field = fields[edited_ends[0]]
        with faults.kept(field):
            changed = _with_range(base, name, row, (ends["min"], ends["max"]), field)
    for key in fields.keys() - ends.keys():
        with faults.kept(fields[key]):
            _check_unchanged(name, key, fields[key], row, changed)
    return changed


def _end(name: str, key: str, field: Entry, row: Row) -> float:
    """The number that the cfg gives for min or max; the row's own where it is the same or left out."""
    number, own = number_of(name, key, field), float(getattr(row, key))
    if number is None or _equal(number, own):
        return own
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise QuantizationError(f"{name!r} has a {key} that float32 cannot hold", where=field.where)
    return number


def _with_range(base: Quantized, name: str, row: Row, ends: Range, field: Entry) -> Row:
    if row.dtype in GRIDS and name not in base.model.graph.initializers:
        return with_range(name, row, *ends, where=f"{field.where}: {name!r}")
    if all(_alike(new, old) for new, old in zip(ends, (row.min, row.max), strict=True)):
        return row
    if name in base.model.graph.initializers:
        raise QuantizationError(f"{name!r} is a constant, whose range is that of its numbers", where=field.where)
    copy = row_of(base.table, name)
    hint = f"set the range of {copy!r}" if copy != name else ""
    raise QuantizationError(
        f"{name!r} is {row.dtype} and not quantized, so its range cannot be set", where=field.where, hint=hint
    )


def _check_unchanged(name: str, key: str, field: Entry, row: Row, changed: Row) -> None:
    """Raise QuantizationError if a key other than min and max says something new."""
    own = getattr(row, key)
    if isinstance(own, str):
        same = field.content == own
    else:
        number = number_of(name, key, field)
        allowed = (own, getattr(changed, key)) if key in _FOLLOWING else (own,)
        same = number is None or any(value is not None and _alike(number, value) for value in allowed)
    if not same:
        old = "[]" if own is None else own if isinstance(own, str) else written_number(own)
        raise QuantizationError(
            f"{key} of {name!r} may not be changed", where=field.where, hint=f"put {old} back; change min and max only"
        )


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _alike(a: float, b: float) -> bool:
    return _equal(a, b) or math.isclose(a, b, rel_tol=_SAME)


def remarks(recipe: str, samples: int, equalized: Sequence[str], quantized: Quantized) -> tuple[str, ...]:
    """What the head of a cfg says of where its numbers come from, in lines of about 100 characters."""
    corrections = quantized.corrections
    counted = f"{samples} sample{'' if samples == 1 else 's'}"
    found = [f"quantized with {recipe or 'given parameters'}" + (f", calibrated with {counted}" if samples else "")]
    for what, names in (
        ("equalized", equalized),
        ("weights clipped", [name for name in quantized.makers if name in corrections.weights]),
        ("bias corrected", [name for name in quantized.makers if name in corrections.biases]),
    ):
        if names:
            found.append(f"{what} in {len(names)} layer{'' if len(names) == 1 else 's'}: {_listed(names, 60)}")
    return tuple(found)


def _listed(names: Sequence[str], width: int) -> str:
    """As many names as fit, at least one, and how many more there are."""
    shown = 1
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= width:
        shown += 1
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
