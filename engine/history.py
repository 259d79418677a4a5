"""A person's edits of a built model, step by step: what is in force, what was saved, what can be undone and redone.

Nothing here imports numpy or ONNX: the app and the headless replay keep the same history.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class EditState:
    """All edits in force, relative to the build.

    wishes: tensor -> precision, the lines of custom_quantize_layers. ranges: row -> (min, max) where they differ from
    the build's. biases: '' for the build's own, or `{run}.{candidate}` of a search, whose corrected biases are used.
    """

    wishes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    biases: str = ""

    def with_wishes(self, changes: Mapping[str, str]) -> EditState:
        """The same with other precisions; '' takes a wish away. The order of the lines that stay is kept."""
        wishes = {**self.wishes, **changes}
        wishes = {name: wish for name, wish in wishes.items() if wish}
        return dataclasses.replace(self, wishes=wishes)

    def with_ranges(self, changes: Mapping[str, tuple[float, ...] | None]) -> EditState:
        """The same with other ranges; None goes back to the build's."""
        ranges = {**self.ranges, **changes}
        return dataclasses.replace(self, ranges={row: ends for row, ends in ranges.items() if ends is not None})

    def differing(self, other: EditState) -> tuple[str, ...]:
        """The tensors whose wish, and the rows whose range, is another there; the first come first."""
        return (*_differing(self.wishes, other.wishes), *_differing(self.ranges, other.ranges))


@dataclasses.dataclass(frozen=True)
class Step:
    """One change: what it is called, and the edits after it. Steps in a row with the same `group` (not '') are one.

    text, text_before: the cfg's text after and before a change of that text by hand; None for all other changes, which
    leave a person's comments and order as they are.
    """

    label: str
    state: EditState
    group: str = ""
    text: str | None = None
    text_before: str | None = None


class History:
    """Steps in order, of which the first `done` are in force. Undo has no end."""

    def __init__(self, start: EditState | None = None) -> None:
        self._start = start or EditState()
        self.saved = self._start
        self._steps: list[Step] = []
        self._done = 0

    @property
    def state(self) -> EditState:
        """The edits in force."""
        return self._steps[self._done - 1].state if self._done else self._start

    @property
    def unsaved(self) -> int:
        """How many tensors and rows differ from what was saved."""
        other_biases = self.state.biases != self.saved.biases
        return len(self.state.differing(self.saved)) + other_biases

    @property
    def undoable(self) -> int:
        """How many steps can be undone."""
        return self._done

    def do(
        self, label: str, state: EditState, group: str = "", *, text: str | None = None, text_before: str | None = None
    ) -> bool:
        """Put `state` in force as a new step; False where it changes nothing. Steps that were undone are forgotten."""
        same = state == self.state and list(state.wishes) == list(self.state.wishes)
        if same and text == text_before:
            return False
        # After an undo, what comes next is meant apart from what is left.
        last = self._steps[-1] if self._done and self._done == len(self._steps) else None
        del self._steps[self._done :]
        step = Step(label, state, group, text, text_before)
        if last is not None and group and last.group == group:
            # Where nothing of the step so far was done to the text, it was then as it is before this.
            self._steps[-1] = step if last.text is None else dataclasses.replace(step, text_before=last.text_before)
        else:
            self._steps.append(step)
        self._done = len(self._steps)
        return True

    def settle(self) -> None:
        """Let what comes next be a step of its own, whatever its group."""
        if self._done:
            self._steps[self._done - 1] = dataclasses.replace(self._steps[self._done - 1], group="")

    def undo(self) -> Step | None:
        """Take the last step back and return it, or None when there is none."""
        if not self._done:
            return None
        self._done -= 1
        return self._steps[self._done]

    def redo(self) -> Step | None:
        """Do the step again that was undone last and return it, or None when there is none."""
        if self._done == len(self._steps):
            return None
        self._done += 1
        return self._steps[self._done - 1]

    def mark_saved(self) -> None:
        """Note that the edits in force are in the cfg's file."""
        self.saved = self.state


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name))
