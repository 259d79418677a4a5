"""Estimated time and memory: what an edit is shown to cost before and after the engine tells, and for which target."""

from __future__ import annotations

import math

import pytest

from engine.errors import ConfigError
from engine.estimates import LayerCost, ModelCosts
from engine.summaries import LiveState
from engine.targets import TARGETS
from rknn_tui.bench.costs import Costs
from rknn_tui.bench.editing import Editing
from tests.rknn_tui.scripted_engine import made_up_totals
from tests.rknn_tui.stand_in_calls import StandInCalls
from tests.rknn_tui.test_editing import LAYERS, Hearer, model


def cost(time: float, *, memory: int = 1000, places: int = 3) -> LayerCost:
    """A layer that takes so many microseconds in int8, twice as many in int16, three times in float16."""
    return LayerCost(time, memory, "memory", tuple(time * factor for factor in (1, 2, 3)[:places]))


def costs_of(target: str = "rk3588", time: float = 100.0) -> ModelCosts:
    return ModelCosts(target, {one.name: cost(time) for one in LAYERS}, made_up_totals(4 * time))


def state(total: float, *, first: bool = False, **changed: LayerCost) -> LiveState:
    precisions = {one.name: "int8" for one in LAYERS} if first else {}
    return LiveState(precisions, {}, 0.0, 0.0, costs=changed, totals=made_up_totals(total))


def opened() -> tuple[Editing, Costs, StandInCalls, Hearer]:
    """A model that was loaded and built for rk3588, and whose costs are known."""
    calls, hearer = StandInCalls(), Hearer()
    costs = Costs(calls)  # type: ignore[arg-type]
    editing = Editing(calls, hearer, costs=costs)  # type: ignore[arg-type]
    costs.ask("rk3588")
    assert calls.answer(costs_of(), method="costs") == {"target": "rk3588"}
    editing.begin(model())
    calls.answer(state(400.0, first=True), method="apply")
    return editing, costs, calls, hearer


def shown(editing: Editing, name: str) -> tuple[float, bool]:
    values = editing.values([name])[name]
    return values.milliseconds, values.expected


def test_a_precision_costs_its_time_with_the_same_key_and_the_engines_word_follows() -> None:
    editing, costs, calls, hearer = opened()
    assert shown(editing, "b") == (0.1, False)
    editing.set_precision([LAYERS[1]], "float16")
    assert hearer.changes[-1]["b"].milliseconds == pytest.approx(0.3)
    assert hearer.changes[-1]["b"].expected
    assert (costs.total_milliseconds, costs.settled) == (pytest.approx(0.6), False)
    told = {"b": LayerCost(310.0, 2000, "compute", (105.0, 205.0, 310.0)), "c": cost(107.0)}
    calls.answer(state(617.0, **told))
    assert set(hearer.changes[-1]) == {"b", "c"}, "what reads it converts"
    values = editing.values(["b", "c"])
    assert (values["b"].milliseconds, values["b"].bytes, values["b"].bound) == (0.31, 2000, "compute")
    assert not values["b"].expected
    assert values["c"].milliseconds == 0.107
    assert (costs.total_milliseconds, costs.settled) == (0.617, True)


def test_many_layers_together_tell_the_expected_time_in_the_total_alone() -> None:
    costs = Costs(StandInCalls())  # type: ignore[arg-type]
    costs.ask("rk3588")
    costs._calls.answer(costs_of())  # type: ignore[attr-defined]
    costs.expect("a", "float16", seen=False)
    assert costs.shown("a") == (0.1, 1000, "memory", False)
    assert (costs.total_milliseconds, costs.settled) == (pytest.approx(0.6), False)
    costs.expect("a", "int16")
    assert costs.shown("a") == (0.2, 1000, "memory", True)


def test_undo_before_the_engine_has_answered_brings_the_time_back() -> None:
    editing, costs, _, _ = opened()
    editing.set_precision([LAYERS[1]], "int16")
    assert shown(editing, "b") == (0.2, True)
    editing.undo()
    assert shown(editing, "b") == (0.1, False)
    assert (costs.total_milliseconds, costs.settled) == (0.4, True)


def test_an_answer_to_an_earlier_edit_leaves_what_a_later_one_is_expected_to_cost() -> None:
    editing, costs, calls, _ = opened()
    editing.set_precision([LAYERS[0]], "float16")
    editing.set_precision([LAYERS[1]], "int16")
    editing.set_precision([LAYERS[0]], "int16")
    calls.answer(
        LiveState(
            {"a": "float16"},
            {},
            0.0,
            0.0,
            costs={"a": LayerCost(300, 1000, "", (100, 200, 300))},
            totals=made_up_totals(600.0),
        )
    )
    assert editing.values(["a"])["a"].precision == "int16", "not what was asked for before"
    assert shown(editing, "a") == (pytest.approx(0.2), True)
    assert shown(editing, "b") == (pytest.approx(0.2), True)
    assert costs.total_milliseconds == pytest.approx(0.6)
    calls.answer(state(600.0, a=cost(200.0), b=cost(200.0)))
    assert costs.settled


def test_layers_of_integers_and_precisions_without_a_time_keep_theirs() -> None:
    editing, costs, calls, _ = opened()
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer(state(400.0, a=LayerCost(100.0, 10)))
    editing.set_precision([LAYERS[0]], "int16")
    assert shown(editing, "a") == (0.1, False)
    assert costs.times("a") == {}
    assert list(costs.times("b").values()) == pytest.approx([0.1, 0.2, 0.3])


def test_another_target_shows_its_numbers_without_a_build_also_after_edits() -> None:
    editing, costs, calls, _ = opened()
    costs.ask("rv1106")
    assert costs.awaited and not costs.known
    answer = ModelCosts("rv1106", {one.name: cost(900.0, places=2) for one in LAYERS}, made_up_totals(3600.0))
    assert calls.answer(answer, method="costs") == {"target": "rv1106"}
    assert shown(editing, "a") == (0.9, False)
    assert set(costs.times("a")) == {"int8", "int16"}
    editing.set_precision([LAYERS[0]], "int16")
    assert shown(editing, "a") == (pytest.approx(1.8), True), "at once, on the target that is looked at"
    # What the engine tells of an edit is for the target that was built for.
    calls.answer(state(600.0, a=cost(200.0)), method="apply")
    assert shown(editing, "a") == (pytest.approx(1.8), True)
    assert calls.answer(ModelCosts("rv1106", {"a": cost(1810.0)}, made_up_totals(4510.0)), method="costs") == {
        "target": "rv1106"
    }
    assert shown(editing, "a") == (1.81, False)
    assert costs.total_milliseconds == 4.51
    assert not costs.looks_at("rk3588")


def test_a_key_that_is_held_asks_for_the_last_target_only() -> None:
    calls = StandInCalls()
    costs = Costs(calls)  # type: ignore[arg-type]
    heard: list[float] = []
    costs.changed = lambda: heard.append(costs.total_milliseconds)
    for target in ("rk3566", "rk3568", "rk3576", "rk3588"):
        costs.ask(target)
    calls.answer(costs_of("rk3566"))
    assert heard == [], "nobody looks at it any longer"
    assert math.isnan(costs.total_milliseconds)
    calls.answer(costs_of("rk3588"))
    assert heard == [0.4]
    assert [params["target"] for _, params, _ in calls.asked] == ["rk3566", "rk3588"]


def test_a_target_without_an_estimate_shows_none_and_says_why() -> None:
    editing, costs, calls, _ = opened()
    costs.ask("rv1103")
    calls.answer(error=ConfigError("rv1103 has no float16", where="target"))
    assert costs.without_estimate == "no estimate for rv1103: target: rv1103 has no float16"
    assert not costs.known and not costs.awaited
    assert math.isnan(shown(editing, "a")[0])


def test_targets_are_compared_once_for_the_model_as_it_is() -> None:
    editing, costs, calls, _ = opened()
    costs.compare()
    costs.compare()
    while calls.waiting:
        target = calls.asked[calls.answered][1]["target"]
        refused = target == "rv1103"
        calls.answer(None if refused else costs_of(target), ConfigError("no float16") if refused else None)
    assert set(costs.by_target) == set(TARGETS)
    asked = [params["target"] for method, params, _ in calls.asked if method == "costs"]
    assert sorted(asked) == sorted(TARGETS), "none twice"
    assert isinstance(costs.by_target["rv1103"], ConfigError)
    assert costs.total_milliseconds == 0.4, "what is shown stays"
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer(state(600.0, a=cost(300.0)))
    assert list(costs.by_target) == ["rk3588"], "the others were those of the model before"


@pytest.mark.parametrize("name", ["RK3588", "rk3588s"])
def test_a_target_is_known_by_all_its_names(name: str) -> None:
    calls = StandInCalls()
    costs = Costs(calls)  # type: ignore[arg-type]
    costs.ask(name)
    calls.answer(costs_of("rk3588"))
    assert costs.looks_at("rk3588")
    assert costs.told({"a": cost(50.0)}, made_up_totals(350.0), "rk3588") == ["a"]
    assert (costs.total_milliseconds, calls.waiting) == (0.35, [])


def test_answers_about_a_model_that_is_gone_are_not_taken() -> None:
    calls = StandInCalls()
    costs = Costs(calls)  # type: ignore[arg-type]
    costs.ask("rk3588")
    costs.forget()
    costs.ask("rk3566")
    calls.answer(costs_of("rk3588"))
    assert costs.awaited
    calls.answer(costs_of("rk3566", 50.0))
    assert costs.total_milliseconds == 0.2
    assert costs.memory == 8000
