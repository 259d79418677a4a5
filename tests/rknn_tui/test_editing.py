"""Edits: what a person sees at once, what is asked of the engine, and what its answers change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from engine.errors import QuantizationError
from engine.history import EditState
from engine.summaries import (
    AccuracyReport,
    CfgReading,
    ErrorPair,
    LayerError,
    LayerSummary,
    LiveState,
    ModelSummary,
    Quality,
    SourceMap,
    SourceShare,
)
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.bench.editing import Editing
from rknn_tui.graph.layer_values import LayerValues
from tests.rknn_tui.stand_in_calls import StandInCalls


def asked_wishes(calls: StandInCalls) -> Mapping[str, str]:
    wishes: Mapping[str, str] = calls.asked[-1][1]["wishes"]
    return wishes


class Hearer:
    def __init__(self) -> None:
        self.changes: list[Mapping[str, LayerValues]] = []
        self.steps: list[str] = []
        self.replies: list[Reply] = []

    def values_changed(self, changes: Mapping[str, LayerValues]) -> None:
        self.changes.append(changes)

    def edits_changed(self, step: str) -> None:
        self.steps.append(step)

    def told(self, reply: Reply) -> None:
        self.replies.append(reply)


def layer(name: str, *reads: str, more: tuple[str, ...] = ()) -> LayerSummary:
    return LayerSummary(0, name, "Conv", reads, (1, 8), "float32", precision="int8", outputs=(name, *more), reads=reads)


LAYERS = (layer("a"), layer("b", "a"), layer("c", "b", more=("c2",)), layer("d", "c"))


def model(built: str = "int8", target: str = "rk3588") -> ModelSummary:
    return ModelSummary("m.onnx", "ONNX", 17, (), (), LAYERS, 10, target, built)


def quality(cosine: float) -> Quality:
    return Quality(cosine, cosine, 2 * (1 - cosine), ())


def state(cosine: float | None = None, first: bool = False, **precisions: str) -> LiveState:
    names = {one.name: "int8" for one in LAYERS} if first else {}
    return LiveState(
        {**names, **precisions},
        {},
        0.03,
        0.01,
        quality(cosine) if cosine is not None else None,
        {name: ErrorPair(0.9, 0.1) for name in precisions},
        lines={one.name: (f"{one.name}_inner", *one.outputs) for one in LAYERS} if first else {},
    )


def opened() -> tuple[Editing, StandInCalls, Hearer]:
    calls, hearer = StandInCalls(), Hearer()
    editing = Editing(calls, hearer)  # type: ignore[arg-type]
    editing.begin(model())
    calls.answer(state(first=True))
    return editing, calls, hearer


def test_a_key_changes_the_row_at_once_and_asks_the_engine() -> None:
    editing, calls, hearer = opened()
    assert editing.set_precision([LAYERS[1]], "float16") is None
    assert hearer.changes[-1]["b"] == LayerValues("float16", wished="float16", changed=True)
    assert editing.pending
    assert asked_wishes(calls) == {"b_inner": "float16", "b": "float16"}, "with the tensors within the layer"
    calls.answer(state(b="float16"))
    assert not editing.pending
    assert editing.values(["b"])["b"].entire == 0.9
    assert editing.extra == 0.03


def test_keys_that_come_faster_than_the_engine_answers_are_sent_as_one_change() -> None:
    editing, calls, _ = opened()
    sent = len(calls.asked)
    for one in LAYERS:
        editing.set_precision([one], "float16")
    assert len(calls.asked) == sent + 1
    calls.answer(state(a="float16"))
    assert len(calls.asked) == sent + 2
    assert set(asked_wishes(calls)) >= {"a", "b", "c", "c2", "d"}
    calls.answer(state(b="float16"))
    assert not editing.pending
    assert len(calls.asked) == sent + 2


def test_undo_and_redo_bring_back_what_was_there() -> None:
    editing, calls, _ = opened()
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer(state(a="float16"))
    editing.set_precision([LAYERS[0]], "int16")
    calls.answer(state(a="int16"))
    assert editing.undo() == Notice("undone: a to int16")
    assert editing.values(["a"])["a"].precision == "float16"
    calls.answer(state(a="float16"))
    editing.undo()
    assert editing.values(["a"])["a"] == LayerValues("int8", entire=0.9)
    assert editing.undo() == Notice("nothing to undo")
    editing.redo()
    assert editing.state.wishes == {"a_inner": "float16", "a": "float16"}


def test_what_the_engine_refuses_is_taken_back_and_told() -> None:
    editing, calls, hearer = opened()
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer(state(a="float16"))
    editing.set_precision([LAYERS[3]], "int16")
    calls.answer(error=QuantizationError("cannot be", where="tensor 'd'"))
    assert isinstance(hearer.replies[-1], Notice)
    assert "cannot be" in hearer.replies[-1].text
    assert editing.state.wishes == {"a_inner": "float16", "a": "float16"}
    assert editing.values(["d"])["d"].precision == "int8"


def test_a_precision_that_the_chip_lacks_is_refused_before_anything_changes() -> None:
    editing, calls, _ = opened()
    editing.begin(model(target="rv1106"))
    calls.answer(state(first=True))
    reply = editing.set_precision([LAYERS[0]], "float16")
    assert isinstance(reply, Notice)
    assert "rv1106 cannot run a layer in float16" in reply.text
    assert not editing.history.undoable


def test_the_next_precision_is_the_chips_next() -> None:
    editing, calls, _ = opened()
    for expected in ("int16", "float16", "int8"):
        editing.cycle([LAYERS[0]])
        calls.answer(state(a=expected))
        assert editing.state.wishes["a"] == expected


def test_wishes_survive_another_build_of_the_same_layers() -> None:
    editing, calls, _ = opened()
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer(state(a="float16"))
    editing.set_range("b", (-1.0, 1.0))
    calls.answer(state())
    editing.begin(model())
    assert editing.state.wishes == {"a_inner": "float16", "a": "float16"}
    assert editing.state.ranges == {}
    assert asked_wishes(calls) == editing.state.wishes
    editing.undo()
    assert editing.state == EditState()


def test_a_package_brings_its_own_wishes_as_saved_ones() -> None:
    calls, hearer = StandInCalls(), Hearer()
    editing = Editing(calls, hearer)  # type: ignore[arg-type]
    editing.begin_with(model(), CfgReading({"a": "float16"}, {}))
    assert asked_wishes(calls) == {"a": "float16"}
    assert editing.history.unsaved == 0
    editing.set_precision([LAYERS[0]], "")
    assert editing.history.unsaved == 1


def test_the_outputs_cosine_is_estimated_until_it_is_measured() -> None:
    editing, calls, _ = opened()
    editing.begin_live(state(0.9, first=True))
    shares = [("weights", "b", 0.5), ("tensor", "b", 0.3), ("tensor", "a", 0.2)]
    sources = tuple(SourceShare(kind, name, name, "Conv", (0.1,), share) for kind, name, share in shares)
    editing.set_sources(SourceMap(("y",), sources, quality(0.9), 1, 0.1), dict(editing.precisions))
    editing.set_precision([LAYERS[1]], "float16")
    # Its weights' half is gone; its output is still rounded for its reader, its input by its maker.
    assert editing.estimate is not None
    assert abs(editing.estimate - 0.95) < 1e-9
    editing.set_precision([LAYERS[2]], "float16")
    assert abs(editing.estimate - 0.98) < 1e-9
    calls.answer(state(0.94, b="float16"))
    assert editing.pending, "the second change is still under way"
    calls.answer(state(0.97, c="float16"))
    assert editing.estimate is None
    assert editing.cosine == 0.97
    assert editing.saved_quality == quality(0.9)


def test_a_number_of_another_precision_is_not_shown() -> None:
    editing, _, _ = opened()
    line = LayerError("b", "Conv", "int8", ErrorPair(0.9, 0.1), ErrorPair(0.95, 0.1))
    editing.set_report(AccuracyReport((line,), {}, 1, 0.1))
    assert editing.values(["b"])["b"].single == 0.95
    editing.set_precision([LAYERS[1]], "float16")
    assert math.isnan(editing.values(["b"])["b"].single), "its single cosine was that of int8"
    changed = editing.line_of("b")
    assert changed is not None and changed.single is None
    editing.undo()
    assert editing.values(["b"])["b"].single == 0.95


def test_the_share_of_a_layer_goes_with_its_noise_and_comes_back() -> None:
    editing, _, hearer = opened()
    editing.begin_live(state(0.9, first=True))
    shares = [("weights", "b", 0.5), ("tensor", "a", 0.5)]
    sources = tuple(SourceShare(kind, name, name, "Conv", (0.1,), share) for kind, name, share in shares)
    editing.set_sources(SourceMap(("y",), sources, quality(0.9), 1, 0.1), dict(editing.precisions))
    editing.set_precision(LAYERS[:2], "float16")
    assert {name: value.share for name, value in hearer.changes[-1].items()} == {"a": 0.0, "b": 0.0}
    editing.undo()
    assert {name: value.share for name, value in hearer.changes[-1].items()} == {"a": 0.5, "b": 0.5}


def test_unsaved_changes_are_counted_by_layers() -> None:
    editing, _, _ = opened()
    assert editing.unsaved == 0
    editing.set_precision(LAYERS[:3], "float16")
    assert len(editing.state.wishes) == 7, "with the tensors within the layers"
    assert editing.unsaved == 3
    editing.set_range("d", (-1.0, 1.0))
    assert editing.unsaved == 4
    editing.mark_saved()
    assert editing.unsaved == 0
    editing.do("candidate 1", dataclasses.replace(editing.state, biases="1.0"))
    assert editing.unsaved == 1, "only biases are others"
