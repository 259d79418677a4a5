"""What the engine tells of one layer when the cursor rests on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import Cancelled, EngineError
from engine.history import EditState
from engine.summaries import LayerFacts, Quality
from rknn_tui.bench.calls import Calls
from rknn_tui.bench.editing import Editing


def judged_words(quality: Quality | None, outputs: Sequence[str]) -> str:
    """By what an output is judged where that is another tensor, as for a closing Sigmoid; '' for all other layers."""
    parts = quality.parts if quality is not None else ()
    found = next((part for part in parts if part.output in outputs and part.tensor not in outputs), None)
    return f"the output is judged by `{found.tensor}`" if found is not None else ""


class Facts:
    """Keeps the facts of the layer that was asked for last, for the edits that they were told for."""

    def __init__(self, calls: Calls, editing: Editing) -> None:
        self._calls, self._editing = calls, editing
        self._known: LayerFacts | None = None
        self._for: tuple[str, EditState] | None = None
        self._measured = False
        self._asked: int | None = None
        self._next: tuple[str, Callable[[], object]] | None = None

    @property
    def latest(self) -> LayerFacts | None:
        """What was told last, whatever was edited since."""
        return self._known

    def of(self, layer: str) -> LayerFacts | None:
        """What is known of the layer now, with the edits in force."""
        return self._known if self._for == (layer, self._editing.state) else None

    def measured(self, layer: str) -> bool:
        """Whether what other precisions would give is known as well."""
        return self._measured and self.of(layer) is not None

    def ask(self, layer: str, then: Callable[[], object]) -> bool:
        """Ask for ranges and histograms, which takes the engine a few milliseconds; whether there will be an answer.

        `then` is called with or without facts, unless the cursor moved on.
        """
        if self.of(layer) is not None or not self._editing.ready:
            return False
        if self._asked is not None:
            self._next = layer, then
            return True
        wanted = (layer, self._editing.state)

        def take(value: Any) -> None:
            if value is not None:
                self._known, self._for, self._measured = value, wanted, False
            then()

        self._start("layer_facts", {"name": layer}, take)
        return True

    def measure(self, layer: str, then: Callable[[], object]) -> None:
        """Ask what each precision of the layer would do to the outputs: as many evaluations as the chip has."""
        known = self.of(layer)
        able = self._editing.live and not self._editing.pending and self._asked is None
        if known is None or self._measured or not able:
            return

        def take(value: Any) -> None:
            if value is not None and self.of(layer) is known:
                self._known, self._measured = dataclasses.replace(known, alternatives=tuple(value)), True
                then()

        self._start("alternatives", {"name": layer}, take)

    def stop(self) -> None:
        """The cursor moved on: what is being measured is not wanted any more."""
        self._next = None
        if self._asked is not None:
            self._calls.cancel(self._asked)

    def forget(self) -> None:
        """The model is another one."""
        self._known = self._for = self._asked = self._next = None

    def _start(self, method: str, params: dict[str, Any], take: Callable[[Any], object]) -> None:
        def answer(value: Any, error: EngineError | None) -> None:
            if self._asked != number:
                return
            self._asked = None
            # Facts are for looking at: where there are none, there is nothing to say.
            if not isinstance(error, Cancelled):
                take(value)
            if self._next is not None and self._asked is None:
                following, self._next = self._next, None
                self.ask(*following)

        self._editing.send_latest()
        number = self._asked = self._calls.start(method, params, answer)
