"""The cfg's text and the edits keep in step, whoever changes what, and files are written only over what is known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engine.errors import FileError
from engine.history import EditState
from engine.summaries import CfgReading, Fault, LayerSummary, LiveState, ModelSummary
from rknn_tui.bench.cfg_text import CfgText
from rknn_tui.bench.dialogue import Notice, Question, Reply
from rknn_tui.bench.editing import Editing
from tests.rknn_tui.stand_in_calls import StandInCalls

NAMES = ("a", "b", "c")
LAYERS = tuple(
    LayerSummary(place, name, "Conv", (), (1,), "float32", precision="int8", outputs=(name,))
    for place, name in enumerate(NAMES)
)


class Hearer:
    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.texts = 0

    def values_changed(self, changes: object) -> None: ...

    def edits_changed(self, step: str) -> None: ...

    def text_changed(self) -> None:
        self.texts += 1

    def told(self, reply: Reply) -> None:
        self.replies.append(reply)


class Desk:
    """A built model with its text."""

    def __init__(self) -> None:
        self.calls, self.hearer = StandInCalls(), Hearer()
        self.editing = Editing(self.calls, self.hearer)  # type: ignore[arg-type]
        self.text = CfgText(self.calls, self.editing, self.hearer)  # type: ignore[arg-type]
        self.editing.begin(ModelSummary("m.onnx", "ONNX", 17, (), (), LAYERS, 1, "rk3588", "int8"))
        self.live(dict.fromkeys(NAMES, "int8"))
        self.text.bring_up_to_date()
        self.calls.answer("text 0", method="cfg_text")
        self.calls.answer("text 0", method="cfg_write")

    def live(self, precisions: dict[str, str] | None = None) -> None:
        self.calls.answer(LiveState(precisions or {}, {}, 0.0, 0.0), method="apply")

    def wish(self, name: str, precision: str) -> None:
        self.editing.set_precision([LAYERS[NAMES.index(name)]], precision)

    def read(self, text: str, group: str = "", **wishes: str) -> None:
        """Someone typed `text`, which asks for these wishes."""
        self.text.type(text)
        self.text.read(group)
        self.calls.answer(CfgReading(wishes, {}), method="cfg_read")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_edit_in_the_graph_changes_the_text_when_somebody_looks(desk: Desk) -> None:
    desk.wish("a", "float16")
    desk.live()
    assert desk.calls.waiting == []
    desk.text.bring_up_to_date()
    asked = desk.calls.answer("text 1", method="cfg_write")
    assert asked == {"text": "text 0", "wishes": {"a": "float16"}, "ranges": {}}
    assert desk.text.text == "text 1"
    desk.text.bring_up_to_date()
    assert desk.calls.waiting == [], "it is up to date"


def test_what_is_typed_becomes_an_edit_and_is_not_written_again(desk: Desk) -> None:
    desk.read("typed", b="float16")
    assert desk.editing.state.wishes == {"b": "float16"}
    desk.live()
    desk.text.bring_up_to_date()
    assert desk.calls.waiting == []
    assert desk.text.text == "typed"


def test_typing_in_one_go_is_one_step_whose_undo_brings_the_text_back(desk: Desk) -> None:
    desk.read("typed x", "typing 1", b="float16")
    desk.live()
    desk.read("typed xy", "typing 1", b="float16", c="float16")
    desk.live()
    assert desk.editing.history.undoable == 1
    desk.editing.undo()
    assert desk.editing.stepped is not None
    assert desk.editing.stepped[1] == "text 0"
    desk.text.step_back(desk.editing.stepped[1])
    assert desk.text.text == "text 0"
    assert desk.editing.state == EditState()
    desk.editing.redo()
    assert desk.editing.stepped[1] == "typed xy"


def test_a_comment_is_a_step_too(desk: Desk) -> None:
    desk.read("text 0 # why")
    assert desk.editing.history.undoable == 1
    assert desk.calls.waiting == [], "the model stays as it is"


def test_a_text_with_faults_changes_nothing_until_it_is_mended(desk: Desk) -> None:
    desk.wish("a", "float16")
    desk.live()
    desk.text.type("broken")
    desk.text.read()
    desk.calls.answer(CfgReading({}, {}, (Fault(3, 5, "no such tensor"),)), method="cfg_read")
    assert desk.text.faults
    assert desk.editing.state.wishes == {"a": "float16"}


def test_edits_made_while_the_text_had_faults_are_kept_when_it_is_mended(desk: Desk) -> None:
    desk.text.type("broken")
    desk.text.read()
    desk.calls.answer(CfgReading({}, {}, (Fault(3, 5, "no such tensor"),)), method="cfg_read")
    desk.wish("a", "float16")
    desk.live()
    desk.text.bring_up_to_date()
    assert desk.calls.waiting == [], "a text with faults is not written to"
    desk.read("mended", b="int16")
    assert desk.editing.state.wishes == {"a": "float16", "b": "int16"}
    desk.live()
    desk.text.bring_up_to_date()
    asked = desk.calls.answer("mended and more", method="cfg_write")
    assert asked["text"] == "mended"
    assert asked["wishes"] == {"a": "float16", "b": "int16"}


def test_saving_writes_what_the_edits_are_and_knows_the_file_next_time(desk: Desk, tmp_path: Path) -> None:
    path, saved = str(tmp_path / "m.cfg"), []
    desk.wish("a", "float16")
    desk.live()
    assert desk.editing.history.unsaved == 1
    desk.text.save(path, saved.extend)
    desk.calls.answer("text 1", method="cfg_write")
    asked = desk.calls.answer([path], method="save_cfg")
    assert asked == {"path": path, "text": "text 1", "known": None}
    assert saved == [path]
    assert desk.editing.history.unsaved == 0
    assert not desk.text.unsaved

    desk.text.save(path, saved.extend)
    asked = desk.calls.answer([path], method="save_cfg")
    assert asked["known"] == hashlib.sha256(b"text 1").hexdigest()


def test_a_file_that_changed_meanwhile_is_written_over_only_when_asked_to(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "m.cfg"
    path.write_text("another hand's")
    desk.text.save(str(path), lambda files: None)
    desk.calls.answer(error=FileError("changed on disk since it was read", where=str(path)), method="save_cfg")
    question = desk.hearer.replies[-1]
    assert isinstance(question, Question)
    assert question.confirm
    assert question.subject == str(path)
    desk.text.save(str(path), lambda files: None, overwrite=True)
    there = hashlib.sha256(b"another hand's").hexdigest()
    assert desk.calls.answer([str(path)], method="save_cfg")["known"] == there


def test_a_cfg_that_is_opened_replaces_the_edits_as_one_step(desk: Desk) -> None:
    desk.wish("a", "float16")
    desk.live()
    desk.text.open("other.cfg")
    desk.calls.answer("text 1", method="cfg_write")
    desk.calls.answer({"text": "other", "sha256": "1"}, method="cfg_open")
    desk.calls.answer(CfgReading({"c": "int16"}, {}), method="cfg_read")
    assert desk.editing.state.wishes == {"c": "int16"}
    assert desk.editing.history.unsaved == 0
    assert (desk.text.text, desk.text.path) == ("other", "other.cfg")
    desk.editing.undo()
    assert desk.editing.state.wishes == {"a": "float16"}


def test_a_cfg_that_cannot_be_used_is_shown_with_its_faults_and_changes_nothing(desk: Desk) -> None:
    desk.text.open("other.cfg")
    desk.calls.answer({"text": "other", "sha256": "1"}, method="cfg_open")
    desk.calls.answer(CfgReading({}, {}, (Fault(2, 1, "no such tensor"),)), method="cfg_read")
    assert desk.editing.state == EditState()
    told = desk.hearer.replies[-1]
    assert isinstance(told, Notice)
    assert "other.cfg line 2: no such tensor" in told.text
