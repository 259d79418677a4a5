"""What a model and its layers are estimated to take on a chip: as the engine told last, and after an edit at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import Cancelled, ConfigError, EngineError
from engine.estimates import CostTotals, LayerCost, ModelCosts
from engine.host_protocol import EngineDiedError
from engine.targets import TARGETS, find_target
from rknn_tui.bench.calls import Calls


class Costs:
    """The estimates for the target that is asked for; nothing of them was measured.

    `expect` changes a layer's time, and the total with it, before the engine has told what an edit costs: what is off
    are the conversions of precision that come or go with it. `changed` is called where what was asked for is there.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.changed: Callable[[], object] = lambda: None
        self.forget()

    def forget(self) -> None:
        """The model is another one: what is known, and what is still asked, is of no use."""
        self.wanted = ""
        """The target that is asked for, as it was named."""
        self.totals: CostTotals | None = None
        self.fault: EngineError | None = None
        """Why there are no estimates for the target."""
        self.by_target: dict[str, CostTotals | EngineError] = {}
        """The totals of the model as it is on targets that it was compared on, or why there are none."""
        self._target = ""
        self._told_for = ""
        self._layers: dict[str, LayerCost] = {}
        self._expected: dict[str, float] = {}
        self._unseen: set[str] = set()
        self._due = False
        self._queue: list[str] = []
        self._asked: int | None = None
        self._asking = ""

    # What is known

    @property
    def awaited(self) -> bool:
        """Whether the numbers of the target that is asked for are still to come."""
        return bool(self.wanted) and self._told_for != self.wanted

    @property
    def known(self) -> bool:
        """Whether there are numbers for the target that is asked for."""
        return self.totals is not None and not self.awaited

    def looks_at(self, target: str) -> bool:
        """Whether the numbers are those of this target."""
        return self.known and _same(self.wanted, target)

    @property
    def settled(self) -> bool:
        """Whether the engine has told all that an edit changed."""
        return not self._expected

    @property
    def without_estimate(self) -> str:
        """Why there are no estimates for the target, in a sentence; '' where there are."""
        return f"no estimate for {self.wanted}: {self.fault}" if self.fault is not None and not self.awaited else ""

    def of(self, layer: str) -> LayerCost | None:
        """What the engine told of a layer last."""
        return self._layers.get(layer)

    def shown(self, layer: str) -> tuple[float, float, str, bool]:
        """A layer's milliseconds with the edits in force, bytes of memory, what bounds it, and whether the time is only
        expected; NaN and '' where nothing is known."""
        cost = self._layers.get(layer)
        if cost is None:
            return math.nan, math.nan, "", False
        expected = self._expected.get(layer) if layer not in self._unseen else None
        time = cost.time_us if expected is None else expected
        return time / 1000, cost.memory_bytes, cost.bound, expected is not None

    def times(self, layer: str) -> dict[str, float]:
        """A layer's milliseconds in each precision that the target has, its neighbours as they are."""
        cost = self._layers.get(layer)
        if cost is None or self._target not in TARGETS:
            return {}
        precisions = TARGETS[self._target].precisions
        return {name: time / 1000 for name, time in zip(precisions, cost.times, strict=False)}

    @property
    def total_milliseconds(self) -> float:
        """The time of one inference with the edits in force; NaN where none is known."""
        if self.totals is None:
            return math.nan
        more = math.fsum(time - self._layers[layer].time_us for layer, time in self._expected.items())
        return (self.totals.time_us + more) / 1000

    def unedited_milliseconds(self, extra: float) -> float:
        """The time without the edits, where the engine told that they take the share `extra` more."""
        return math.nan if self.totals is None or extra <= -1 else self.totals.time_us / (1 + extra) / 1000

    @property
    def memory(self) -> float:
        """Bytes of the weights and of the plan of the tensors between layers; NaN where nothing is known."""
        return math.nan if self.totals is None else float(self.totals.weight_bytes + self.totals.internal_bytes)

    # Edits

    def expect(self, layer: str, precision: str, *, seen: bool = True) -> None:
        """A layer is to compute in this precision; where it is parted, the finer one counts.

        Without `seen` the total alone tells of it.
        """
        cost = self._layers.get(layer)
        if cost is None or self._target not in TARGETS:
            return
        precisions = TARGETS[self._target].precisions[: len(cost.times)]
        finest = precision.rpartition("+")[2]
        time = cost.times[precisions.index(finest)] if finest in precisions else cost.time_us
        self._expected.pop(layer, None)
        self._unseen.discard(layer)
        if time != cost.time_us:
            self._expected[layer] = time
            if not seen:
                self._unseen.add(layer)

    def told(self, layers: Mapping[str, LayerCost], totals: CostTotals | None, target: str) -> list[str]:
        """The engine told what edits of the model that was built for `target` made of some layers.

        Returns the layers whose numbers may be others now. Where another target is looked at, that one is asked for.
        """
        if layers or totals is not None:
            # Those of other targets were of the model before.
            self.by_target.clear()
        if not _same(self.wanted, target):
            if self.wanted and (layers or totals is not None):
                self.ask(self.wanted)
            return []
        if self.awaited:
            return []
        found = [*layers, *self._expected]
        self._expected.clear()
        self._unseen.clear()
        self._layers.update(layers)
        self.totals = totals or self.totals
        if self.totals is not None:
            self.by_target[self._target] = self.totals
        return found

    # Questions

    def ask(self, target: str) -> None:
        """Ask what the model as it is costs on a target, which is the one that is looked at from now on."""
        self.wanted, self._due = target, True
        self._next()

    def ask_anew(self, target: str) -> None:
        """Ask what another model, or one that was built otherwise, costs."""
        self.by_target.clear()
        self.ask(target)

    def compare(self) -> None:
        """Ask what the model as it is costs in all on each target of which that is not known."""
        known = {*self.by_target, *self._queue, self._asking}
        self._queue += [one for one in TARGETS if one not in known]
        self._next()

    def _next(self) -> None:
        if self._asked is not None or not (self._due or self._queue):
            return
        # A person waits for the one that is looked at.
        target = self.wanted if self._due else self._queue.pop(0)
        self._due = False

        def answer(value: Any, error: EngineError | None) -> None:
            if self._asked != number:
                return
            self._asked, self._asking = None, ""
            if isinstance(error, EngineDiedError):
                return
            if not isinstance(error, Cancelled):
                self._take(target, value, error)
            self._next()

        self._asking = target
        number = self._asked = self._calls.start("costs", {"target": target}, answer)

    def _take(self, target: str, value: ModelCosts | None, error: EngineError | None) -> None:
        if value is not None:
            self.by_target[value.target] = value.totals
        elif error is not None:
            self.by_target[target] = error
        if target != self.wanted:
            return
        self._told_for, self.fault = target, error
        self._target = value.target if value is not None else ""
        self._layers = value.layers if value is not None else {}
        self.totals = value.totals if value is not None else None
        self._expected.clear()
        self._unseen.clear()
        self.changed()


def _same(one: str, other: str) -> bool:
    """Whether two names are of one target; names may be in any case, and some chips have two."""
    try:
        return find_target(one) is find_target(other)
    except ConfigError:
        return one == other
