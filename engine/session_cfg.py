"""A session whose built model takes edits by value, and whose cfg is read, changed and kept as text."""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.builds import Built
from engine.compiler.results import CompileSummary
from engine.cost.estimate import CostModel
from engine.cost.layer_costs import Machine
from engine.cost.relative import RelativeCost
from engine.errors import InputError, QuantizationError, nearest
from engine.files import hybrid_files
from engine.quantization.cfg_edit import with_ranges, with_wishes
from engine.quantization.edits import Edits, check_wish, edited, layer_wishes
from engine.quantization.hybrid import CfgFault, fault_message, read_edits, remarks
from engine.quantization.quantized import Quantized
from engine.quantization.table import to_cfg
from engine.session import Session
from engine.session_facts import Tensors
from engine.session_state import path_from
from engine.summaries import CfgReading, Fault
from engine.targets import Target

_ENDS = 2


class Base:
    """What a build or a file gave, before a person's edits, and what was found of it since.

    `biases` are corrected biases by the name of what they were corrected for, '' for the build's own. `costs` gives the
    cost model of a quantized model on a machine.
    """

    def __init__(self, built: Built, costs: Callable[[Quantized, Machine], CostModel]) -> None:
        self.built = built
        self._costs = costs
        self.runs = 0
        self._models: dict[str, Quantized] = {"": built.single}
        self._lock = threading.Lock()

    @functools.cached_property
    def cost(self) -> RelativeCost:
        """Estimates time as a share of what the model takes without edits."""
        single, target = self.built.single, self.built.config.target
        return RelativeCost(single, target, self._costs(single, Machine(target)))

    @functools.cached_property
    def tensors(self) -> Tensors:
        """The tensors between the layers."""
        return Tensors(self.built.single.model, self.built.single.layers)

    @functools.cached_property
    def lines(self) -> dict[str, tuple[str, ...]]:
        """The lines of custom_quantize_layers that put each model input and layer into a precision as a whole."""
        single = self.built.single
        rows = single.table.rows
        inputs = [v.name or "" for v in single.model.graph.inputs]
        found = {name: (name,) for name in inputs if name in rows}
        return {**found, **{layer.name: tuple(layer_wishes(layer, single.table, "")) for layer in single.layers}}

    def keep(self, candidates: Sequence[Quantized]) -> int:
        """Keep the biases of a search's candidates; returns the search's number."""
        with self._lock:
            self.runs += 1
            for index, model in enumerate(candidates):
                self._models[f"{self.runs}.{index}"] = self.built.single.changed(biases=model.corrections.biases)
            return self.runs

    def model(self, biases: str) -> Quantized:
        """The base with these biases. Raises QuantizationError for a name that no search has given."""
        found = self._models.get(biases) if isinstance(biases, str) else None
        if found is None:
            raise QuantizationError(
                f"no search has found biases {biases!r} for this build",
                where="biases",
                hint="the model was built anew since, so search again",
            )
        return found


class CfgSession(Session):
    """A session that knows its build apart from the edits to it. Texts are those of a cfg of the built model."""

    _base: Base | None = None
    _edited: Built | None = None
    _biases: str = ""
    _read_last: tuple[str, Edits] | None = None

    def release(self) -> None:
        """Let go of the model and everything made from it."""
        super().release()
        self._base = self._edited = None

    def aside(self) -> CfgSession:
        """A session of its own over what this one holds now: what either does next, the other does not see.

        But for the biases of `tune_run`, which both may take.
        """
        if self._built is not None and self._built.stored.precision != "float16":
            self._current()
        return copy.copy(self)

    def compile(self, *arguments: Any, **named: Any) -> CompileSummary:
        """As Session has it; what is edited stays edited."""
        before = self._built
        found = super().compile(*arguments, **named)
        if self._edited is before:
            self._edited = self._built
        return found

    def edits(self) -> CfgReading:
        """The built model's wishes, and those ranges that are not the build's own."""
        found = self._edits()
        return CfgReading(dict(found.wishes), dict(found.ranges))

    def cfg_text(self) -> str:
        """The built model's cfg, its edits included."""
        stored = self._require_quantized("cfg_text").stored
        quantized = stored.quantized
        return to_cfg(quantized.table, remarks(stored.recipe, stored.samples, stored.equalized, quantized))

    def cfg_read(self, text: str) -> CfgReading:
        """What a cfg's text asks of the build, and everything that is wrong with it. Raises OrderError only."""
        found, faults = self._read(text)
        return CfgReading(
            dict(found.wishes),
            dict(found.ranges),
            tuple(Fault(fault.line, fault.column, fault_message(fault.error)) for fault in faults),
        )

    def cfg_write(self, text: str, wishes: Mapping[str, str], ranges: Mapping[str, Sequence[float]]) -> str:
        """The text with these wishes and ranges and nothing else changed; other ranges are the build's own again.

        Raises QuantizationError for a text that cannot be used, and rows that it does not have.
        """
        asked, (found, faults) = edits_from(wishes, ranges), self._read(text)
        base, target = self._current().built.single, self._current().built.config.target
        rows = base.table.rows
        wanted = {name: (rows[name].min, rows[name].max) for name in found.ranges}
        wanted.update(asked.ranges)
        moved = {name: ends for name, ends in wanted.items() if found.ranges.get(name) != ends}
        if faults or dict(found.wishes) != dict(asked.wishes):
            text = with_wishes(text, asked.wishes)
        if moved:
            text = with_ranges(text, moved)
        elif not faults and all(_can(base, *wish, target) for wish in asked.wishes.items()):
            # What the next key's change starts from: reading takes as long as all else here.
            self._read_last = text, Edits(asked.wishes, found.ranges)
        return text

    def save_cfg(self, path: str | Path, text: str, known: str | None = None) -> list[str]:
        """Write the text as it is and, beside it, the .model and .data of the build that it makes the built model of.

        `known` is the SHA-256 (in hexadecimal) of the text that was last read from or written to `path`, None where
        none was. Returns the files' paths. Raises FileError, also where the file changed since.
        """
        base, loaded = self._current(), self._require_loaded("save_cfg")
        single = base.model(self._biases)
        plain = single.changed(table=dataclasses.replace(single.table, wishes={}))
        stored = base.built.stored.changed(plain)
        # What was read from such files may be written to them again: the graph is the same.
        source = None if loaded.framework == "hybrid" else loaded.path
        found = hybrid_files.write_beside(path_from(path, "path"), _text(text), stored, known=known, source=source)
        return [str(file) for file in found]

    def cfg_open(self, path: str | Path) -> dict[str, str]:
        """The `text` of the cfg at `path` and its `sha256`. Raises FileError."""
        text, checksum = hybrid_files.read_text(path_from(path, "path"))
        return {"text": text, "sha256": checksum}

    def _current(self) -> Base:
        """What the built model was before it was edited. Raises OrderError."""
        built = self._require_quantized("edits")
        if self._base is None or built is not self._edited:
            self._base, self._edited, self._biases, self._read_last = Base(built, self._cost_model), built, "", None
            self._renewed()
        return self._base

    def _read(self, text: str) -> tuple[Edits, list[CfgFault]]:
        base = self._current().built
        if self._read_last is None or self._read_last[0] != _text(text):
            found, faults = read_edits(base.single, text, base.config.target)
            if faults:
                return found, faults
            self._read_last = text, found
        return self._read_last[1], []

    def _edits(self) -> Edits:
        base, table = self._current(), self._require_quantized("edits").single.table
        rows = base.built.single.table.rows
        changed = {
            name: (row.min, row.max)
            for name, row in table.rows.items()
            if row is not rows[name] and (row.min, row.max) != (rows[name].min, rows[name].max)
        }
        return Edits(table.wishes, changed)

    def _renewed(self) -> None:
        """Hear that there is another build."""

    def _take_edited(self, single: Quantized, biases: str) -> None:
        """Make `single`, an edited base with these biases, the built model."""
        built = self._current().built
        if not biases and single.table == built.single.table:
            # All edits were taken back: what was compiled of the build is the model's again.
            self._built = self._edited = built
            self._biases, self._simulator = biases, None
            return
        many = single
        if built.stored.batch > 1:
            # The graph for many samples takes longer to make than anything else here, and no edit changes it.
            many = dataclasses.replace(single, model=built.quantized.model, layers=built.quantized.layers)
        stored = built.stored.changed(single)
        self._built = self._edited = dataclasses.replace(built, stored=stored, quantized=many)
        self._biases, self._simulator = biases, None


def edits_from(wishes: Any, ranges: Any) -> Edits:
    """Edits as JSON has them. Raises InputError for anything else."""
    if not isinstance(wishes, Mapping) or not all(isinstance(precision, str) for precision in wishes.values()):
        raise InputError("expected a precision by tensor", where="wishes")
    if not isinstance(ranges, Mapping) or not all(map(_is_range, ranges.values())):
        raise InputError("expected a minimum and a maximum by row", where="ranges")
    return Edits(dict(wishes), {name: (float(ends[0]), float(ends[1])) for name, ends in ranges.items()})


def checked(base: Quantized, edits: Edits, target: Target) -> Quantized:
    """As `edited`, with a hint for rows that do not exist; a range that is as it was is no edit.

    Raises QuantizationError.
    """
    unknown = next((name for name in edits.ranges if name not in base.table.rows), None)
    if unknown is not None:
        raise QuantizationError(
            "the model has no such row", where=f"row {unknown!r}", hint=nearest(unknown, base.table.rows)
        )
    # Of a grid that came with the source model, the scale need not be what its range would give.
    own = {name: (base.table.rows[name].min, base.table.rows[name].max) for name in edits.ranges}
    ranges = {name: ends for name, ends in edits.ranges.items() if ends != own[name]}
    return edited(base, Edits(edits.wishes, ranges), target)


def whole_layers(
    base: Quantized, wishes: Mapping[str, str], before: Mapping[str, str], target: Target
) -> dict[str, str]:
    """`wishes` with lines for the tensors within layers, where the wish for a layer's output is meant for all of it.

    That is so where the wishes say nothing of the tensors within, and where they say of them what `before`, the wishes
    in force, does, but another precision of the output. Without such lines a wish parts the layer.
    """
    found = dict(wishes)
    for layer in dict.fromkeys(base.makers[name] for name in (*wishes, *before) if name in base.makers):
        within = [name for name in layer.inner if name in base.table.rows]
        said = {name: wishes[name] for name in within if name in wishes}
        now, then = (next((w[name] for name in layer.outputs if name in w), "") for w in (wishes, before))
        followed = now != then and said == {name: before[name] for name in within if name in before}
        if said and not followed:
            continue
        for name in within:
            found.pop(name, None)
            if now and _can(base, name, now, target):
                found[name] = now
    return found


def _can(base: Quantized, tensor: str, precision: str, target: Target) -> bool:
    try:
        check_wish(base, tensor, precision, target)
    except QuantizationError:
        return False
    return True


def _is_range(ends: Any) -> bool:
    return (
        isinstance(ends, Sequence)
        and not isinstance(ends, str)
        and len(ends) == _ENDS
        and all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends)
    )


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"expected text, got {type(text).__name__}", where="text")
    return text
