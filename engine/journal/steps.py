"""The edits that a journal's entries make, step by step, as they were when the entries were written."""

from __future__ import annotations

from collections.abc import Mapping

from engine.history import EditState, History
from engine.journal.entries import Entry


class EntrySteps:
    """Keeps the history that the entries tell of, from the edits that a build or a file gave.

    Every entry that changes edits is a step, also where it changes nothing, as undo counts them so.
    """

    def __init__(self, start: EditState | None = None) -> None:
        self.history = History(start)
        self._groups: list[str] = []
        self._made = 0

    @property
    def state(self) -> EditState:
        """The edits in force."""
        return self.history.state

    def do(self, entry: Entry, taken: EditState | None = None) -> None:
        """Do what an entry says; one that changes no edits does nothing.

        `taken` are the edits that a `take` puts in force; by default what the entry itself tells of them.
        """
        if entry.verb == "undo":
            self.history.undo()
        elif entry.verb == "redo":
            self.history.redo()
        else:
            after = edits_after(entry, self.state) if taken is None else taken
            if after is not None:
                self._step(entry, after)

    def _step(self, entry: Entry, after: EditState) -> None:
        """Put edits in force; each step has a group of its own, which what is joined to it shares."""
        groups = self._groups[: self.history.undoable]
        if not entry["joined"] or not groups:
            self._made += 1
            groups.append(str(self._made))
        self._groups = groups
        # A text that is new makes it a step also where the edits are the same.
        self.history.do(entry.verb, after, groups[-1], text=groups[-1], text_before="")


def edits_after(entry: Entry, before: EditState) -> EditState | None:
    """The edits that follow from those in force; None for entries that change none."""
    if entry.verb == "set":
        return before.with_wishes(entry["wishes"])
    if entry.verb == "range":
        return before.with_ranges(entry["ranges"])
    if entry.verb == "cfg":
        biases = before.biases if entry["biases"] is None else entry["biases"]
        return EditState(entry["wishes"], entry["ranges"], biases)
    if entry.verb == "take":
        return taken(entry, before, entry["wishes"])
    return None


def taken(entry: Entry, before: EditState, wishes: Mapping[str, str] | None) -> EditState:
    """The edits with a candidate of a search, whose lines are `wishes`; None leaves those in force."""
    lines = before.wishes if wishes is None else wishes
    return EditState(lines, before.ranges, f"{entry['run']}.{entry['candidate']}")
