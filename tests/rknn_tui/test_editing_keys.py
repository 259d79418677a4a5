"""Edits by keys: what each does to the layers, to the cfg's text and to the files, and how it is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rknn_tui.screens.choose import ChooseScreen
from rknn_tui.widgets.marked_list import ChoiceList
from tests.rknn_tui.test_app import keep_settings
from tests.rknn_tui.walking import Walk, walk


class Editor(Walk):
    """A user who looks at precisions by the layers' places."""

    @property
    def wishes(self) -> dict[int, str]:
        """Which layers were put into which precision."""
        wishes = self.app.bench.editing.state.wishes
        places = {layer.name: place for place, layer in enumerate(self.app.bench.layers)}
        return {places[name]: wish for name, wish in sorted(wishes.items(), key=lambda wish: places[wish[0]])}

    @property
    def cursor(self) -> int:
        return self.app.tune.graph.cursor

    @property
    def marked(self) -> list[int]:
        marked = set(self.app.tune.graph.marked)
        return [place for place, layer in enumerate(self.app.bench.layers) if layer.name in marked]

    @property
    def cfg(self) -> str:
        """The cfg's text as it is now, edits of this moment included where it was brought up to date."""
        return self.app.bench.text.text or ""

    @property
    def choices(self) -> list[str]:
        """The rows of the list in front."""
        assert isinstance(self.app.screen, ChooseScreen)
        return [" ".join(row) for row in self.app.screen.query_one(ChoiceList)._choices]

    async def do(self, *keys: str) -> None:
        """Press keys, each when all was answered that the one before asked for, and rest."""
        for key in keys:
            await self.does(key)
        await self.rests()

    async def types(self, text: str) -> None:
        """Replace the line that is asked for."""
        self.app.tune.prompt.set_text(text)
        await self.do("enter")


@pytest.fixture(autouse=True)
def here(model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(model_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("rknn_tui.screens.asking.SECONDS_BEFORE_CONFIRMING", 0.0)


@asynccontextmanager
async def analysed(
    engine: list[str], *keys: str, model: str = "layers-40.onnx", size: tuple[int, int] = (80, 24), **options: Any
) -> AsyncIterator[Editor]:
    async with walk(engine, Path(model), "b", "enter", "a", *keys, size=size, user_of=Editor, **options) as user:
        yield user


async def test_space_goes_through_the_precisions_of_the_chip(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j") as user:
        for precision in ("int16", "float16", "int8", "int16"):
            await user.do("space")
            assert user.wishes == {1: precision}
        await user.do("d")
        assert user.wishes == {}
        assert "int8 " in user.row(1)
    config = {"target_platform": "rv1106"}
    async with analysed(engine_command, "j", "f", model="layers-30.onnx", config=config) as user:
        assert "rv1106 cannot run a layer in float16: it has int8, int16" in user.text("message")
        await user.do("space", "space")
        assert user.wishes == {1: "int8"}


async def test_a_key_for_each_precision(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j") as user:
        for key, precision, shown in (("8", "int8", "i8*"), ("6", "int16", "i16*"), ("f", "float16", "f16*")):
            await user.do(key)
            assert user.wishes == {1: precision}
            assert shown in user.row(1)
        assert "*1" in user.text("status")
        await user.do("f")
        assert "it is so already" in user.text("message")
        await user.do("d")
        assert user.wishes == {}
        assert "*" not in user.text("status")


async def test_the_outputs_cosine_follows_each_edit(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j") as user:
        assert "cos 0.99312 " in user.text("status")
        await user.do("f")
        assert "cos 0.99312>0.99656 " in user.text("status")
        await user.do("j", "f")
        assert "cos 0.99312>0.99771 " in user.text("status")
        await user.do("u", "u")
        assert "cos 0.99312 " in user.text("status")


async def test_marked_layers_change_together_and_are_taken_back_together(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        await user.do("j", "m", "j", "j", "m", "G", "f")
        assert user.wishes == {1: "float16", 3: "float16"}
        await user.do("u")
        assert user.wishes == {}
        assert user.marked == [1, 3]
        await user.do("escape", "escape", "f")
        assert user.wishes == {39: "float16"}


async def test_a_range_of_rows_changes_together(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "j") as user:
        await user.do("V", "j", "j")
        assert "3 marked" in user.text("status")
        await user.do("6")
        assert user.wishes == {2: "int16", 3: "int16", 4: "int16"}
        await user.do("U")
        assert user.marked == []
        await user.do("V", "k", "V")
        assert "2 layers marked" in user.text("message")


async def test_layers_are_marked_by_what_they_have_in_common(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "f", "j") as user:
        await user.do("*")
        assert user.marked == [place for place in range(40) if place % 5 == 2]
        await user.do("U", "k", "%")
        assert user.marked == [1]
        await user.do("U", "|")
        await user.types("op:conv cos<.99")
        assert user.marked == [10]
        await user.do("U", "B")
        assert user.marked == list(range(10))


async def test_all_that_a_filter_finds_is_put_into_a_precision(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        await user.do("M")
        await user.types("op:pool")
        assert "end with a precision" in user.text("message")
        assert user.app.tune.prompt.value == "op:pool"
        await user.types("op:pool block:/model.3 int16")
        assert user.wishes == {34: "int16", 39: "int16"}
        await user.do("M")
        await user.types("op:pool block:/model.3 default")
        assert user.wishes == {}
        await user.do("M")
        await user.types("op:nothing float16")
        assert "no layer matches 'op:nothing'" in user.text("message")


async def test_a_range_is_typed_checked_and_taken_back(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j") as user:
        name = user.app.bench.layers[1].name
        await user.do("R")
        assert f"range of {name}" in user.text("message")
        assert user.app.tune.prompt.value == "-1.5 6"
        await user.types("6 -1.5")
        assert "the wrong way round" in user.text("message")
        assert user.app.tune.prompt.value == "6 -1.5"
        await user.types("much")
        assert "is no range" in user.text("message")
        await user.types("-1, 5.5")
        assert user.app.bench.editing.state.ranges == {name: (-1.0, 5.5)}
        assert "i8*" in user.row(1)
        await user.do("R")
        await user.types("")
        assert user.app.bench.editing.state.ranges == {}
        await user.do("u")
        assert user.app.bench.editing.state.ranges == {name: (-1.0, 5.5)}
        await user.do("R", "escape")
        assert user.app.bench.editing.state.ranges == {name: (-1.0, 5.5)}


async def test_a_number_before_a_key(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        await user.do("semicolon", "3", "j")
        assert user.cursor == 3
        await user.do("semicolon", "1", "2", "j")
        assert user.cursor == 15
        await user.do("semicolon", "2", "space")
        assert user.wishes == {15: "float16"}
        await user.do("k", "f", "k", "f", "semicolon", "3", "u")
        assert user.wishes == {15: "int16"}
        await user.do("semicolon", "9", "escape", "j")
        assert user.cursor == 14
        await user.do("semicolon", "9", "9", "9", "9", "9", "j")
        assert user.cursor == 39


async def test_what_the_engine_refuses_is_told_and_taken_back(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "f", *"jjjjjjjj") as user:
        assert user.cursor == 9
        await user.do("f")
        assert "cannot be wished for (leave it out)" in user.text("message")
        assert user.wishes == {1: "float16"}
        assert "int8 " in user.row(9)
        assert not user.app.bench.editing.pending
        await user.do("k", "f")
        assert user.wishes == {1: "float16", 8: "float16"}
        assert "0.99771" in user.text("status")


async def test_a_folded_block_is_edited_as_one(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "z", model="graph-60.onnx") as user:
        row = user.row(user.cursor)
        assert "11 layers" in row
        await user.do("f")
        assert user.wishes == dict.fromkeys(range(1, 12), "float16")
        assert "f16*" in user.row(user.cursor)
        await user.do("z")
        assert [("f16*" in user.row(place)) for place in range(13)] == [False, *[True] * 11, False]
        await user.do("u")
        assert user.wishes == {}


async def test_matches_are_gone_through_with_the_filter_gone(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        await user.do("n")
        assert "filters" in user.text("message")
        await user.do("slash", *"pool", "enter")
        assert user.app.tune.graph.row_count == 8
        await user.do("escape", "g", "n")
        assert user.cursor == 4
        await user.do("n", "n", "N")
        assert user.cursor == 9
        await user.do("G", "n")
        assert "no layer below matches" in user.text("message")


async def test_a_filter_that_is_typed_leaves_the_cursor_where_it_can(engine_command: list[str]) -> None:
    async with analysed(engine_command, *"jjjjjjj") as user:
        await user.do("slash", *"nothing")
        assert user.app.tune.graph.row_count == 0
        await user.do(*["backspace"] * 7)
        assert user.cursor == 7
        await user.do(*"op:conv")
        assert user.app.tune.graph.current is user.app.bench.layers[10]
        await user.do("down", "escape")
        assert user.cursor == 15, "where a person went meanwhile"


@pytest.mark.parametrize(
    ("key", "first", "last"),
    [("c", 38, 39), ("1", 5, 4), ("n", 0, 39), ("o", 2, 36), ("p", 3, 39), ("e", 4, 39), ("g", 0, 39)],
)
async def test_rows_are_sorted_and_edited_where_they_are(
    engine_command: list[str], key: str, first: int, last: int
) -> None:
    async with analysed(engine_command, "j", "j", "j", "f", "j", "6", "g") as user:
        await user.do("s", key)
        graph = user.app.tune.graph
        assert graph.current is not None
        assert graph.current.index == first
        rows = [layer.index for layer in graph.shown_layers()]
        assert len(rows) == 40
        await user.do("G", "8")
        assert user.wishes[last] == "int8"
        assert [layer.index for layer in graph.shown_layers()] == rows, "an edit alone moves no row"


async def test_sorting_is_turned_round_and_left_by_another_key(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        graph = user.app.tune.graph
        await user.do("s", "1")
        rows = [layer.index for layer in graph.shown_layers()]
        assert rows == [*range(5, 40), 0, 1, 2, 3, 4]
        await user.do("I")
        # Those that are alike stay in the graph's order.
        assert [layer.index for layer in graph.shown_layers()] == [0, 1, 2, 3, 4, *range(39, 4, -1)]
        await user.do("s", "x")
        assert graph.sorting == ("single", True)
        await user.do("s", "g")
        assert [layer.index for layer in graph.shown_layers()] == list(range(40))


async def test_undo_and_redo_go_across_graph_and_text(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "f", "c") as user:
        one, two, three = (user.app.bench.layers[place].name for place in (1, 2, 3))
        assert user.app.tune.editing_text
        await user.do("ctrl+home", "down", "down", "end", "enter", *f"{two}: int16 # by hand")
        assert user.wishes == {1: "float16", 2: "int16"}
        await user.do("tab", "g", "j", "j", "j", "8", "c")
        assert user.wishes == {1: "float16", 2: "int16", 3: "int8"}
        assert f"    {two}: int16 # by hand\n" in user.cfg
        steps = [user.cfg]
        states = [user.wishes]
        for _ in range(3):
            await user.do("ctrl+z")
            steps.append(user.cfg)
            states.append(user.wishes)
        assert states == [{1: "float16", 2: "int16", 3: "int8"}, {1: "float16", 2: "int16"}, {1: "float16"}, {}]
        assert f"{three}: int8" not in steps[1] and "by hand" in steps[1]
        assert "by hand" not in steps[2] and f"{one}: float16" in steps[2]
        assert "custom_quantize_layers: {}" in steps[3]
        for place in (2, 1, 0):
            await user.do("ctrl+r")
            assert (user.cfg, user.wishes) == (steps[place], states[place])
        await user.do("ctrl+r")
        assert "nothing to redo" in user.text("message")
        assert user.app.tune.editor is not None and user.app.tune.editor.text == steps[0]


async def test_a_mistake_in_the_text_is_a_step_as_well(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "f", "c") as user:
        before = user.cfg
        await user.do("ctrl+home", "down", "down", "end", "enter", *"nothing: int8")
        assert "1 fault!" in user.app.tune.line("cfg-title").text
        assert user.wishes == {1: "float16"}
        await user.do("ctrl+home", "ctrl+n")
        assert "line 4: the model has no tensor 'nothing'" in user.text("message")
        await user.do("ctrl+z")
        assert user.cfg == before
        assert "fault" not in user.app.tune.line("cfg-title").text


async def test_what_is_copied_goes_to_the_clip_file(engine_command: list[str], tmp_path: Path) -> None:
    clip = tmp_path / "cache" / "rknn-tui" / "clip.txt"
    async with analysed(engine_command, "j", "f") as user:
        name = user.app.bench.layers[1].name
        await user.do("y", "n")
        assert clip.read_text() == name
        told = f"sent to the terminal, and written to {clip}"
        assert told.replace(" ", "") == "".join(user.text("message").split())
        await user.do("y", "r")
        assert clip.read_text().split("\t") == ["1", name, "Relu", "float16", "0.99950", "", "1x16x8x8"]
        await user.do("slash", *"pool", "enter", "y", "t")
        assert [line.split("\t")[0] for line in clip.read_text().splitlines()] == [
            *("index", "4", "9", "14", "19", "24", "29", "34", "39"),
        ]
        await user.do("y", "c")
        assert f"    {name}: float16\n" in clip.read_text(), "though the cfg was never shown"
        await user.do("y", "l")
        assert clip.read_text().startswith("rknn-tui build layers-40.onnx --dataset dataset.txt")
        await user.do("y", "x")
        assert clip.read_text().startswith("rknn-tui build")


async def test_saving_asks_for_a_place_once(engine_command: list[str], model_folder: Path) -> None:
    saved = model_folder / "layers-40.quantization.cfg"
    async with analysed(engine_command, "j", "f") as user:
        name = user.app.bench.layers[1].name
        await user.do("w")
        assert user.app.tune.prompt.value == saved.name
        await user.types(str(model_folder))
        assert "name a file in it" in user.text("message")
        await user.types(saved.name)
        assert f"{name}: float16" in saved.read_text()
        assert "*" not in user.text("status")
        assert "fp16 " in user.row(1), "it is in the file: no change any more"
        await user.do("6", "w")
        assert f"{name}: int16" in saved.read_text()
        assert user.app.tune.question is None
        await user.do("greater_than_sign")
        (model_folder / "other.cfg").write_text("mine\n")
        await user.types("other.cfg")
        assert "other.cfg exists. y replaces it" in user.text("message")
        await user.do("x")
        assert (model_folder / "other.cfg").read_text() == "mine\n"
        await user.do("greater_than_sign")
        await user.types("other.cfg")
        await user.do("y")
        assert (model_folder / "other.cfg").read_text() == saved.read_text()


async def test_edits_made_while_a_file_is_written_are_not_taken_for_saved(
    engine_command: list[str], model_folder: Path
) -> None:
    async with analysed(engine_command, "j", "f", "w", "enter") as user:
        assert user.app.bench.unsaved == 0
        await user.do("6", "y", "c")
        user.holding = True
        assert await user.does("w") == ["key w", "> save_cfg"]
        await user.does("j", "f")
        await user.goes_on()
        await user.rests()
        assert user.wishes == {1: "int16", 2: "float16"}
        assert "float16" not in (model_folder / "layers-40.quantization.cfg").read_text()
        assert "*1" in user.text("status")
        assert "i16 " in user.row(1) and "f16*" in user.row(2)
        await user.do("q")
        assert "1 edit not saved" in user.text("message")


async def test_a_file_that_changed_on_disk_is_not_written_over_unasked(
    engine_command: list[str], model_folder: Path
) -> None:
    saved = model_folder / "layers-40.quantization.cfg"
    async with analysed(engine_command, "j", "f", "w", "enter") as user:
        saved.write_text("# someone else's\n" + saved.read_text())
        await user.do("j", "6", "w")
        assert "changed on disk" in user.text("message")
        await user.do("x")
        assert saved.read_text().startswith("# someone else's")
        assert "*1" in user.text("status")
        await user.do("w", "y")
        assert "someone" not in saved.read_text()
        assert f"{user.app.bench.layers[2].name}: int16" in saved.read_text()
        assert "*" not in user.text("status")


async def test_a_cfg_is_read_again_from_its_file(engine_command: list[str], model_folder: Path) -> None:
    saved = model_folder / "layers-40.quantization.cfg"
    async with analysed(engine_command, "j", "f") as user:
        await user.do("ctrl+l")
        assert "never saved" in user.text("message")
        await user.do("w", "enter")
        saved.write_text(saved.read_text().replace("float16", "int16"))
        await user.do("ctrl+l")
        assert user.wishes == {1: "int16"}
        assert "*" not in user.text("status")
        await user.do("u")
        assert user.wishes == {1: "float16"}
        assert "*1" in user.text("status")
        saved.write_text(saved.read_text().replace("out_1: int16", "out_x: int16"))
        await user.do("ctrl+l")
        assert "the model has no tensor" in user.text("message").replace("\n ", "")
        assert user.wishes == {1: "float16"}
        saved.unlink()
        await user.do("ctrl+l")
        assert "cannot be read: No such file" in user.text("message").replace("\n ", "")


async def test_another_cfg_is_read_for_the_model(engine_command: list[str], model_folder: Path) -> None:
    async with analysed(engine_command, "j", "f") as user:
        three = user.app.bench.layers[3].name
        (model_folder / "other.cfg").write_text(
            f"custom_quantize_layers:\n    {three}: int16 # theirs\nquantize_parameters:\n"
        )
        await user.do("O")
        await user.types("missing.cfg")
        assert "missing.cfg: cannot be read" in user.text("message")
        await user.do("O")
        await user.types("other.cfg")
        assert user.wishes == {3: "int16"}
        assert "read other.cfg" in user.text("message")
        await user.do("c")
        assert "# theirs" in user.cfg
        await user.do("tab", "u")
        assert user.wishes == {1: "float16"}


async def test_the_difference_to_the_saved_cfg(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        one, two = user.app.bench.layers[1].name, user.app.bench.layers[2].name
        await user.do("equals_sign")
        assert "nothing has changed" in user.text("message")
        await user.do("j", "f", "equals_sign")
        assert any(f"{one}: float16" in row and row.lstrip().split()[1] == "+" for row in user.choices), user.choices
        await user.do("escape", "w", "enter", "equals_sign")
        assert "nothing has changed" in user.text("message")
        await user.do("j", "6", "equals_sign")
        changed = [row for row in user.choices if row.lstrip().split()[1] in "+-"]
        assert len(changed) == 1 and f"{two}: int16" in changed[0]


async def test_a_finding_is_gone_to_and_cured(engine_command: list[str]) -> None:
    async with analysed(engine_command) as user:
        await user.do("L", "space")
        assert user.wishes == {4: "float16"}
        await user.do("j", "space")
        assert user.wishes == {4: "float16"}
        screen: Any = user.app.screen
        assert "no change of precisions cures this" in screen.line("message").text
        await user.do("k", "enter")
        assert user.app.screen is user.app.tune
        assert user.cursor == 4
        await user.do("u")
        assert user.wishes == {}


async def test_candidates_are_looked_at_and_taken(engine_command: list[str]) -> None:
    async with analysed(engine_command, "j", "f") as user:
        await user.do("A", "enter", "T")
        await user.do("k", "space")
        assert user.wishes == {1: "float16", 3: "float16"}
        await user.do("j", "space")
        assert user.wishes == {1: "float16", **dict.fromkeys((3, 4, 5), "float16")}
        await user.do("g", "space")
        assert user.wishes == {1: "float16"}, "the model as it was"
        await user.do("G", "enter")
        assert user.app.screen is user.app.tune
        assert "candidate 3 is in force" in user.text("message")
        await user.do("u")
        assert user.wishes == {1: "float16"}, "all that was looked at is one step"
        await user.do("ctrl+r")
        assert user.wishes == {1: "float16", **dict.fromkeys((3, 4, 5), "float16")}
        await user.do("j", "8", "u", "u", "u")
        assert user.wishes == {}


async def test_two_states_of_the_model_are_compared(engine_command: list[str], model_folder: Path) -> None:
    async with analysed(engine_command) as user:
        await user.do("5")
        screen: Any = user.app.screen
        assert "no differences" in screen.line("about").text
        await user.do("escape", "j", "f", "w", "enter", "j", "6", "5")
        about = screen.line("about").text
        assert "as built" in about and "now" in about
        assert "2 P precision" in about
        await user.do("d", "G", "n")
        assert "no more differences" in screen.line("message").text
        await user.do("a")
        assert [row.split()[1] for row in user.choices[:3]] == ["now", "saved", "as"]
        await user.do("down", "enter")
        assert "saved as layers-40.quantization.cfg" in screen.line("about").text
        assert "1 P precision" in screen.line("about").text
        four = user.app.bench.layers[4].name
        (model_folder / "other.cfg").write_text(f"custom_quantize_layers:\n    {four}: int16\nquantize_parameters:\n")
        await user.do("b", *"cfg file", "enter")
        assert user.app.screen is user.app.tune
        await user.types("other.cfg")
        await user.until(lambda: user.app.screen is screen)
        await user.answered()
        assert "other.cfg" in screen.line("about").text
        assert user.wishes == {1: "float16", 2: "int16"}, "a comparison edits nothing"
        await user.do("g", "n", "enter")
        assert user.app.screen is user.app.tune
        assert user.cursor == 1


async def test_read_only_writes_nothing(engine_command: list[str], model_folder: Path) -> None:
    keep_settings("read_only: true\n")
    before = sorted(path.name for path in model_folder.iterdir())
    async with analysed(engine_command, "j", "f") as user:
        assert user.wishes == {1: "float16"}, "looking at what an edit would do is no writing"
        for key in ("w", "greater_than_sign", "e"):
            await user.do(key)
            assert "read-only" in user.text("message"), key
            assert user.app.tune.question is None
        await user.do("c", "ctrl+s")
        assert "read-only" in user.text("message")
    assert sorted(path.name for path in model_folder.iterdir()) == before


async def test_the_theme_changes_at_once_and_leaves_edits_alone(
    engine_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with analysed(engine_command, "j", "f") as user:

        def background() -> set[str]:
            strips = user.app.screen._compositor.render_strips()
            return {segment.style.bgcolor.name for strip in strips for segment in strip if segment.style.bgcolor}

        assert background() <= {"default"}
        await user.do("ctrl+t")
        assert user.app.palette.name == "ansi-light"
        await user.do("ctrl+t")
        assert user.app.palette.name == "ink"
        assert background() == {"#15191f"}
        assert "f16*" in user.row(1)
        await user.do("5", "escape", "ctrl+t")
        assert user.app.palette.name == "ansi-dark"
        assert background() <= {"default"}
        assert user.wishes == {1: "float16"}
    monkeypatch.setenv("NO_COLOR", "1")
    async with walk(engine_command, Path("layers-3.onnx"), "ctrl+t", "ctrl+t") as user:
        assert "NO_COLOR is set" in user.text("message")
        assert user.app.palette.name == "ansi-light"
