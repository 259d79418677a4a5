"""The shortest journal that does the same: what was undone, replaced or repeated is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from engine.history import EditState
from engine.journal.entries import STEPS, Entry

_ROOT = 0


def compact(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries that lead to the same edits of the same model, and to the same files, in as few steps as are needed.

    Of the files that were saved or exported more than once only the last is made. The last analysis comes first, so
    that all edits are measured on its sample; searches stay where something of what they found is in force.
    """
    course = _Course(entries)
    points = _kept_points(course)
    return _Script(course, points).entries()


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a model comes from: the places of the entries that opened and built it, and of their settings."""

    config_at_open: int | None = None
    opened: int | None = None
    config: int | None = None
    built: int | None = None


@dataclasses.dataclass(frozen=True)
class _Point:
    """Where it matters which edits are in force, those of `node`: for the entry at `place`, or at the end (None)."""

    place: int | None
    origin: _Origin
    node: int


@dataclasses.dataclass(frozen=True)
class _Edit:
    """An entry that changes edits, and the place of the search that it takes biases from, where that is known."""

    entry: Entry
    search: int | None = None


class _Course:
    """All edits that ever were, as a tree: each node is an edit on top of its parent's, and undo goes up again."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.points: list[_Point] = []
        self.runs: dict[int, int] = {}
        """The number of the search at a place."""
        self.config: int | None = None
        """The place of the settings in force; None for the defaults, or those that a package brought."""
        self._edits: list[_Edit | None] = [None]
        self._parents = [_ROOT]
        self._depths = [0]
        self._origin = _Origin()
        self._searches: dict[int, int] = {}
        self._steps: list[int] = []
        self._done = 0
        for place, entry in enumerate(entries):
            self._follow(place, entry)
        self.points.append(_Point(None, self._origin, self._node))

    def path(self, above: int, node: int) -> list[int]:
        """The nodes from below `above` down to `node`."""
        found = []
        while node != above:
            found.append(node)
            node = self._parents[node]
        return found[::-1]

    def edits(self, nodes: Iterable[int]) -> list[_Edit]:
        """The edits of some nodes."""
        return [edit for node in nodes if (edit := self._edits[node]) is not None]

    def common(self, one: int, other: int) -> int:
        """The lowest node above both."""
        while one != other:
            if self._depths[one] >= self._depths[other]:
                one = self._parents[one]
            else:
                other = self._parents[other]
        return one

    def searches_for(self, node: int) -> set[int]:
        """The places of the searches that the edits of a node come from."""
        return {edit.search for edit in _merged(self.edits(self.path(_ROOT, node))) if edit.search is not None}

    @property
    def _node(self) -> int:
        return self._steps[self._done - 1] if self._done else _ROOT

    def _follow(self, place: int, entry: Entry) -> None:
        if entry.verb == "config":
            self.config = place
        elif entry.verb == "open":
            self._begin(_Origin(config_at_open=self.config, opened=place))
            if not _is_onnx(entry):
                self.config = None
        elif entry.verb == "build":
            self._begin(dataclasses.replace(self._origin, config=self.config, built=place))
        elif entry.verb == "undo":
            self._done = max(self._done - 1, 0)
        elif entry.verb == "redo":
            self._done = min(self._done + 1, len(self._steps))
        elif entry.verb in STEPS:
            self._step(entry)
        else:
            if entry.verb == "tune":
                self.runs[place] = number = entry["run"] or max(self._searches, default=0) + 1
                self._searches[number] = place
            self.points.append(_Point(place, self._origin, self._node))

    def _begin(self, origin: _Origin) -> None:
        self._origin, self._searches, self._steps, self._done = origin, {}, [], 0

    def _step(self, entry: Entry) -> None:
        number = entry["run"] if entry.verb == "take" else int((entry["biases"] or "0").partition(".")[0])
        node = len(self._parents)
        self._edits.append(_Edit(dataclasses.replace(entry, line=0), self._searches.get(number)))
        self._parents.append(self._node)
        self._depths.append(self._depths[self._node] + 1)
        # What is joined to a step ends it in place of what ended it before; nothing joins what an undo has uncovered.
        joins = entry["joined"] and self._done and self._done == len(self._steps)
        del self._steps[self._done - 1 if joins else self._done :]
        self._steps.append(node)
        self._done = len(self._steps)


def _kept_points(course: _Course) -> list[_Point]:
    """The points that count, in order."""
    *points, last = course.points
    kept, analysis = [last], None
    needed = course.searches_for(last.node)
    written: set[tuple[str, str]] = set()
    for point in reversed(points):
        assert point.place is not None
        entry = course.entries[point.place]
        if entry.verb == "analyze":
            if analysis is None and point.origin == last.origin:
                analysis = dataclasses.replace(point, node=_ROOT)
            continue
        if entry.verb == "tune":
            counts = point.place in needed
        else:
            file = (entry.verb, entry["cfg"] or entry["path"])
            counts = file not in written
            written.add(file)
        if counts:
            kept.append(point)
            needed |= course.searches_for(point.node)
    kept.reverse()
    if analysis is not None:
        kept.insert(next(i for i, point in enumerate(kept) if point.origin == last.origin), analysis)
    return kept


class _Script:
    """Writes the entries that go from point to point."""

    def __init__(self, course: _Course, points: Sequence[_Point]) -> None:
        self._course, self._points = course, points
        self._searches = {point.place for point in points}
        self._ends = self._marked()
        self._entries: list[Entry] = []
        self._opened: int | None = None
        self._settings: Any = None
        self._node = _ROOT
        self._written: dict[int, tuple[int, int]] = {}

    def entries(self) -> tuple[Entry, ...]:
        """All of them."""
        origin = None
        for point in self._points:
            if point.origin != origin:
                origin = point.origin
                self._begin(origin)
            self._go_to(point.node)
            if point.place is not None:
                self._write(point.place)
        self._configure(self._course.config)
        return tuple(self._entries)

    def _marked(self) -> set[int]:
        """The nodes at which edits cannot be put together with those that come after."""
        found = {point.node for point in self._points}
        for one, other in zip(self._points, self._points[1:], strict=False):
            if one.origin == other.origin:
                found.add(self._course.common(one.node, other.node))
        return found

    def _begin(self, origin: _Origin) -> None:
        self._node = _ROOT
        if origin.opened is not None and origin.opened != self._opened:
            self._opened = origin.opened
            first = origin.config_at_open
            onnx = _is_onnx(self._course.entries[origin.opened])
            # Of the settings only this one counts when an ONNX model is opened.
            if onnx and origin.built is not None and self._level(first) == self._level(origin.config):
                first = origin.config
            self._configure(first)
            self._write(origin.opened)
            self._settings = self._settings if onnx else None
        if origin.built is not None:
            self._configure(origin.config)
            self._write(origin.built)

    def _level(self, config: int | None) -> Any:
        return None if config is None else self._course.entries[config]["settings"].get("optimization_level")

    def _configure(self, config: int | None) -> None:
        if config is not None and self._course.entries[config]["settings"] != self._settings:
            self._settings = self._course.entries[config]["settings"]
            self._write(config)

    def _write(self, place: int) -> None:
        entry = dataclasses.replace(self._course.entries[place], line=0)
        if entry.verb == "tune":
            # Searches before it may be gone.
            entry = dataclasses.replace(entry, arguments={**entry.arguments, "run": self._course.runs[place]})
        self._entries.append(entry)

    def _go_to(self, node: int) -> None:
        common = self._course.common(self._node, node)
        while self._node != common:
            steps, self._node = self._written[self._node]
            self._entries += [Entry("undo")] * steps
        part: list[int] = []
        for one in self._course.path(common, node):
            part.append(one)
            if one in self._ends:
                merged = _merged([self._without_lost(edit) for edit in self._course.edits(part)])
                self._entries += [edit.entry for edit in merged]
                self._written[one] = len(merged), self._node
                self._node, part = one, []

    def _without_lost(self, edit: _Edit) -> _Edit:
        """The edit without biases of a search that is left out, since nothing of it is in force at any point."""
        if edit.search is None or edit.search in self._searches:
            return edit
        if edit.entry.verb == "cfg":
            return _Edit(_with(edit.entry, biases=None))
        return _Edit(Entry("set", {"wishes": {}}))


def _merged(edits: Sequence[_Edit]) -> list[_Edit]:
    """The fewest edits that come to the same, whatever was in force before; each one a step of its own."""
    whole: list[_Edit] = []
    wishes: list[dict[str, Any]] = []
    ranges: list[dict[str, Any]] = []
    # What later edits put in place of all that was before.
    new_wishes = new_ranges = new_biases = False
    for edit in reversed(edits):
        entry = edit.entry
        if entry.verb == "set" and not new_wishes:
            wishes.append(entry["wishes"])
        elif entry.verb == "range" and not new_ranges:
            ranges.append(entry["ranges"])
        elif entry.verb == "take" and not (new_wishes and new_biases):
            whole.append(edit)
            new_wishes = new_biases = True
        elif entry.verb == "cfg":
            tells_biases = entry["biases"] is not None
            if not (new_wishes and new_ranges):
                whole.append(edit if not new_biases else _Edit(_with(entry, biases=None)))
            elif tells_biases and not new_biases:
                # The other cfg that comes later says all but this.
                later = next(i for i, one in enumerate(whole) if one.entry.verb == "cfg")
                whole[later] = _Edit(_with(whole[later].entry, biases=entry["biases"]), edit.search)
            new_wishes = new_ranges = True
            new_biases = new_biases or tells_biases
    changed_wishes, changed_ranges = _together(wishes), _together(ranges)
    whole.reverse()
    for place, edit in enumerate(whole):
        if edit.entry.verb == "cfg":
            last = place == len(whole) - 1
            state = EditState(edit.entry["wishes"], edit.entry["ranges"])
            state = state.with_ranges(changed_ranges).with_wishes(changed_wishes if last else {})
            whole[place] = _Edit(_with(edit.entry, wishes=state.wishes, ranges=state.ranges), edit.search)
            changed_ranges, changed_wishes = {}, {} if last else changed_wishes
    steps = [dataclasses.replace(edit, entry=_with(edit.entry, joined=None)) for edit in whole]
    if changed_wishes:
        steps.append(_Edit(Entry("set", {"wishes": changed_wishes})))
    if changed_ranges:
        steps.append(_Edit(Entry("range", {"ranges": changed_ranges})))
    return steps


def _together(changes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Changes, the latest first, as one; what was taken away and came again stands where it came again."""
    found: dict[str, Any] = {}
    for change in reversed(changes):
        for name, value in change.items():
            if not found.get(name, True):
                del found[name]
            found[name] = value
    return found


def _is_onnx(entry: Entry) -> bool:
    """Whether an `open` reads a model without settings of its own."""
    return bool(entry["model"].lower().endswith(".onnx"))


def _with(entry: Entry, **arguments: Any) -> Entry:
    return dataclasses.replace(entry, arguments={**entry.arguments, **arguments})
