"""Candidates of a search as edits: looked at, taken, taken back, and edited further."""

from __future__ import annotations

from engine.summaries import Candidate, TuneReport, TuneRun
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.bench.editing import Editing
from rknn_tui.bench.searches import Searches
from rknn_tui.keymap import DEFAULT
from tests.rknn_tui.test_editing import LAYERS, opened, quality, state

CANDIDATES = tuple(Candidate({name: "float16"}, (name,), 0.01, quality(0.99)) for name in "bcd")


def searched() -> tuple[Searches, Editing, list[Reply]]:
    """Three candidates, found while layer a was in float16."""
    editing, calls, _ = opened()
    told: list[Reply] = []
    searches = Searches(calls, editing, told.append, DEFAULT.shown)  # type: ignore[arg-type]
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer(state())
    searches.tune("data.txt", {"cosine": 0.999})
    calls.answer(TuneRun(4, TuneReport(quality(0.9), CANDIDATES, 1, True, True, 8, 1.0)), method="tune_run")
    return searches, editing, told


def test_what_was_found_is_told_with_the_samples_it_was_judged_on() -> None:
    _, _, told = searched()
    assert isinstance(told[-1], Notice)
    assert (
        told[-1].text == "3 candidates; cosine 0.90000 to 0.99000 on 8 samples with 1 layer, +1.0% time; T shows them"
    )


def test_the_candidate_in_force_is_the_one_whose_edits_are() -> None:
    searches, editing, _ = searched()
    assert searches.in_force == -1, "the model that the search began with"
    searches.preview(1)
    assert searches.in_force == 1
    assert editing.state.wishes == {"a_inner": "float16", "a": "float16", "c": "float16"}
    editing.undo()
    assert searches.in_force == -1
    editing.redo()
    assert searches.in_force == 1
    editing.set_precision([LAYERS[3]], "float16")
    assert searches.in_force is None, "it was edited further"
    editing.undo()
    assert searches.in_force == 1


def test_looking_at_candidates_is_one_step_and_taking_one_another() -> None:
    searches, editing, _ = searched()
    for index in (0, 1, 2, 1):
        searches.preview(index)
    assert isinstance(reply := searches.take(1), Notice)
    assert reply.text == "candidate 2 is in force: cosine 0.99000 on 8 samples of the search"
    searches.preview(2)
    editing.undo()
    assert searches.in_force == 1
    editing.undo()
    assert searches.in_force == -1


def test_without_a_candidate_the_edits_before_are_back() -> None:
    searches, editing, _ = searched()
    editing.set_precision([LAYERS[3]], "int16")
    before = editing.state
    searches.take(0)
    searches.preview(1)
    assert "int16" not in editing.state.wishes.values()
    searches.take(-1)
    assert editing.state == before
    editing.set_precision([LAYERS[3]], "float16")
    later = editing.state
    searches.preview(2)
    searches.preview(-1)
    assert editing.state == later, "edits made after an earlier look are kept"


def test_a_search_begins_with_the_latest_edits_even_while_the_engine_is_busy_with_earlier_ones() -> None:
    editing, calls, _ = opened()
    searches = Searches(calls, editing, [].append, DEFAULT.shown)  # type: ignore[arg-type]
    editing.set_precision([LAYERS[0]], "float16")
    editing.set_precision([LAYERS[1]], "float16")
    assert calls.waiting == ["apply"]
    searches.tune("data.txt", {})
    assert calls.waiting == ["apply", "apply", "tune_run"]
    assert calls.answer(state(a="float16"))["wishes"] == {"a_inner": "float16", "a": "float16"}
    assert editing.pending
    assert calls.answer(state(b="float16"))["wishes"] == editing.state.wishes
    assert not editing.pending
    assert calls.waiting == ["tune_run"]


def test_a_search_that_waited_is_about_the_edits_of_its_turn() -> None:
    editing, calls, _ = opened()
    searches = Searches(calls, editing, [].append, DEFAULT.shown)  # type: ignore[arg-type]
    searches.lint("data.txt", None)
    searches.tune("data.txt", {})
    editing.set_precision([LAYERS[0]], "float16")
    calls.answer((), method="findings")
    calls.answer(state(a="float16"), method="apply")
    calls.answer(TuneRun(1, TuneReport(quality(0.9), CANDIDATES, 1, True, True, 8, 1.0)), method="tune_run")
    searches.preview(0)
    assert editing.state.wishes == {"a_inner": "float16", "a": "float16", "b": "float16"}
