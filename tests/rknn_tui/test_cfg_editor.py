"""The cfg editor under a person's fingers: what is typed, what is drawn, and what others are told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget

from engine.quantization.table import Row, Table, to_cfg
from engine.summaries import Fault
from rknn_tui import palette
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from rknn_tui.widgets.cfg_editor import CfgEditor

ROW = Row("int8", -1.0, 3.0, 0.0157, -64, -1.0, 3.0)


def cfg(tensors: int = 3, **wishes: str) -> str:
    return to_cfg(Table({f"conv_{number}": ROW for number in range(tensors)}, wishes), ["made for a test"])


class EditorScreen(Screen[None]):
    AUTO_FOCUS = ""
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)

    def __init__(self, symbols: Symbols) -> None:
        super().__init__()
        self.symbols = symbols

    def compose(self) -> ComposeResult:
        yield CfgEditor(palette.load("ansi-dark")[0], self.symbols)


class EditorApp(App[None]):
    """The editor alone, with a record of its messages and of the keys that it leaves to others."""

    ENABLE_COMMAND_PALETTE = False
    theme: Reactive[str] = Reactive("ansi-dark")
    CSS = "Screen { background: $background; color: $foreground; overflow: hidden; }"

    def __init__(self, text: str = "", *, symbols: Symbols = UNICODE) -> None:
        super().__init__()
        self._text = text
        self._symbols = symbols
        self.changes: list[CfgEditor.Changed] = []
        self.said: list[str] = []
        self.keys: list[str] = []

    def get_default_screen(self) -> Screen[Any]:
        return EditorScreen(self._symbols)

    def on_ready(self) -> None:
        self.editor = self.screen.query_one(CfgEditor)
        self.editor.show(self._text)
        self.editor.focus()

    def on_key(self, event: events.Key) -> None:
        self.keys.append(event.key)
        if event.key == "f5":
            self.screen.refresh()

    def on_cfg_editor_changed(self, message: CfgEditor.Changed) -> None:
        self.changes.append(message)

    def on_cfg_editor_moved(self) -> None:
        self.said.append(f"moved to {self.editor.line}")

    def on_cfg_editor_copied(self, message: CfgEditor.Copied) -> None:
        self.said.append(f"copied {message.text}")

    def on_cfg_editor_refused(self) -> None:
        self.said.append("refused")


class User:
    def __init__(self, app: EditorApp, pilot: Pilot[None]) -> None:
        self.app, self.pilot, self.editor = app, pilot, app.editor

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        await self.press(*text)

    async def paste(self, text: str) -> None:
        self.app.post_message(events.Paste(text))
        await self.pilot.pause()

    def row(self, y: int) -> str:
        return self.editor.render_line(y).text.rstrip()

    def rows(self) -> list[str]:
        return [self.row(y) for y in range(self.editor.size.height)]

    def styles(self, y: int) -> dict[str, str]:
        return {
            segment.text.strip(): str(segment.style) for segment in self.editor.render_line(y) if segment.text.strip()
        }

    def drawing(self, monkeypatch: pytest.MonkeyPatch) -> list[Region]:
        """The regions that are drawn from now on."""
        drawn: list[Region] = []
        refresh = self.editor.refresh

        def recorded(*regions: Region, **how: Any) -> Widget:
            drawn.extend(regions or [self.editor.size.region])
            return refresh(*regions, **how)

        monkeypatch.setattr(self.editor, "refresh", recorded)
        return drawn


@asynccontextmanager
async def editing(text: str, size: tuple[int, int] = (80, 24), *, symbols: Symbols = UNICODE) -> AsyncIterator[User]:
    app = EditorApp(text, symbols=symbols)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield User(app, pilot)


# Typing


async def test_what_is_typed_is_in_the_text_and_told_at_once() -> None:
    async with editing(cfg()) as user:
        await user.press("down", "end", "backspace", "backspace", "backspace", "enter")
        await user.type("conv_1: int16")
        assert user.editor.text == cfg(conv_1="int16")
        assert user.app.changes[-1].text == user.editor.text
        assert user.editor.tensor_at_cursor == "conv_1"
        assert user.row(2).rstrip() == "      conv_1: int16"


async def test_typing_goes_on_until_something_else_is_done() -> None:
    async with editing("one\ntwo\n") as user:

        async def continues(*keys: str) -> list[bool]:
            user.app.changes.clear()
            await user.press(*keys)
            return [change.continues for change in user.app.changes]

        assert await continues("a", "b", "c") == [False, True, True]
        assert await continues("backspace", "backspace") == [False, True]
        assert await continues("x", "left", "y") == [False, False]
        assert await continues("y", "right", "left", "y") == [True, False]
        assert await continues("enter", "z") == [False, False]
        user.editor.patch(user.editor.text + "three\n")
        assert await continues("z") == [False]
        assert await continues("delete", "delete") == [False, True]
        await user.paste("p")
        assert await continues("q") == [False]


async def test_a_paste_replaces_what_is_selected_and_ends_its_lines_as_the_text_does() -> None:
    async with editing("first\r\nsecond\r\n") as user:
        await user.press("down", "shift+end")
        assert user.editor.selected_text == "second"
        await user.paste("a: int8\rb: int16\n")
        assert user.editor.text == "first\r\na: int8\r\nb: int16\r\n\r\n"
        assert user.editor.line == 4
        assert len(user.app.changes) == 1


async def test_text_is_copied_cut_and_put_back() -> None:
    async with editing("a: int8\nb: int16\n") as user:
        await user.press("ctrl+x", "down", "ctrl+v")
        assert user.editor.text == "b: int16\na: int8\n"
        assert "copied a: int8\n" in user.app.said
        await user.press("ctrl+home", "shift+right", "ctrl+c", "end", "ctrl+v")
        assert user.editor.text == "b: int16b\na: int8\n"


async def test_keys_that_edit_nothing_are_left_to_the_screen() -> None:
    async with editing(cfg()) as user:
        keys = ["tab", "escape", "ctrl+z", "ctrl+y", "ctrl+c", "ctrl+s", "f1"]
        await user.press(*keys, "x", "down", "enter")
        assert user.app.keys == keys


async def test_a_text_that_is_read_only_can_be_read_but_not_changed() -> None:
    async with editing(cfg()) as user:
        user.editor.read_only = True
        await user.press("down", "x", "delete", "enter", "ctrl+x")
        await user.paste("y")
        assert user.editor.text == cfg()
        assert user.app.changes == []
        assert user.app.said.count("refused") == 5
        assert user.editor.line == 2


async def test_up_and_down_stay_in_their_column_across_short_and_wide_lines() -> None:
    async with editing("abcdef\nab\n漢字漢字\nabcdef\n") as user:
        await user.press("end", "left", "left")
        columns = []
        for _ in range(3):
            await user.press("down")
            columns.append(user.editor._buffer.cursor.column)
        assert columns == [2, 2, 4]


# Drawing


async def test_lines_are_in_the_colours_of_what_they_say() -> None:
    async with editing(cfg(conv_1="float16") + "# end", (80, 60)) as user:
        await user.press("down")
        chosen = user.editor.palette
        assert user.styles(2)["float16"] == str(chosen["float16"])
        assert user.styles(4) == {"conv_0:": str(chosen["text"])}
        assert user.styles(5)["qtype:"] == str(chosen["muted"])
        assert user.styles(7)["int8"] == str(chosen["int8"])
        assert user.styles(52) == {"# end": str(chosen["comment"])}


async def test_every_cell_that_changes_is_drawn_and_hardly_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async with editing(cfg(30), (60, 20)) as user:
        drawn = user.drawing(monkeypatch)
        chance = random.Random(1)
        keys = [
            "down",
            "up",
            "left",
            "right",
            "a",
            "漢",
            "enter",
            "backspace",
            "delete",
            "shift+down",
            "pagedown",
            "end",
        ]
        for _ in range(150):
            drawn.clear()
            before = [list(user.editor.render_line(y)) for y in range(20)]
            key = chance.choice(keys)
            user.editor.on_key(events.Key(key, key if len(key) == 1 else None))
            after = [list(user.editor.render_line(y)) for y in range(20)]
            cells = {
                (x, y)
                for region in drawn
                for y in range(region.y, region.bottom)
                for x in range(region.x, region.right)
            }
            changed = {
                (x, y)
                for y in range(20)
                for x, (old, new) in enumerate(zip(_styled(before[y]), _styled(after[y]), strict=True))
                if old != new
            }
            assert changed <= cells, key
            assert {y for _, y in cells} == {y for _, y in changed}, key


def _styled(segments: list[Any]) -> list[tuple[str, str]]:
    cells: list[tuple[str, str]] = []
    for segment in segments:
        for character in segment.text:
            cells += [(character, str(segment.style))] * (2 if character == "漢" else 1)
    return cells


async def test_a_line_that_is_too_long_follows_the_cursor_and_the_others_stay() -> None:
    name = "".join(f"/block.{number}" for number in range(12))
    async with editing(f"    {name}: int8\n    {name}: int16\n", (40, 6)) as user:
        assert user.row(0) == f"      {name}"[:39] + "…"
        await user.press("end")
        assert user.row(0).endswith("block.11: int8")
        assert user.row(0)[2] == "…"
        assert user.row(1) == f"      {name}"[:39] + "…"
        await user.press("down")
        assert user.row(0) == f"      {name}"[:39] + "…"


async def test_nothing_in_a_text_commands_the_terminal() -> None:
    async with editing("\x1b[2J\x07\u202e: int8\n\tmin:\n\x00\ud800\n") as user:
        assert user.row(0) == "  ?[2J??: int8"
        assert user.row(1) == f"  {UNICODE.marker}min:"
        assert user.row(2) == "  ??"
    async with editing("漢: int8\n", symbols=ASCII) as user:
        assert user.row(0) == "  ?: int8"


async def test_where_the_keys_go_elsewhere_a_marker_shows_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with editing(cfg()) as user:
        await user.press("down", "down")
        drawn = user.drawing(monkeypatch)
        user.app.screen.set_focus(None)
        await user.pilot.pause()
        assert user.row(2).startswith(f" {UNICODE.marker}")
        user.app.screen.set_focus(user.editor)
        await user.pilot.pause()
        assert not user.row(2).startswith(f" {UNICODE.marker}")
        assert {region.y for region in drawn} == {2}


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 3), (200, 60)])
async def test_any_size_can_be_drawn_and_edited(size: tuple[int, int]) -> None:
    async with editing(cfg(), size) as user:
        user.editor.set_faults([Fault(1, 1, "is not right"), Fault(0, 0, "nor is the whole")])
        await user.press("x", "end", "y", "enter", "down", "pagedown", "ctrl+end", "z")
        assert all(user.editor.render_line(y).cell_length == size[0] for y in range(size[1]))
        assert user.editor.text.endswith("z")


async def test_a_resize_between_two_keys_keeps_the_cursor_in_sight() -> None:
    async with editing(cfg(), (80, 24)) as user:
        await user.press("pagedown")
        await user.pilot.resize_terminal(30, 5)
        user.editor.on_key(events.Key("x", "x"))
        await user.pilot.pause()
        assert any("x" in row for row in user.rows())
        assert len(user.rows()) == 5


# Faults


async def test_a_fault_stands_at_its_line_and_goes_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with editing(cfg(conv_1="floot16")) as user:
        drawn = user.drawing(monkeypatch)
        user.editor.set_faults([Fault(3, 13, "no precision 'floot16': use float16")])
        assert user.row(2) == "!     conv_1: floot16  no precision 'floot16': use float16"
        assert user.styles(2)["conv_1: floot16"] == str(user.editor.palette["fault"])
        assert {region.y for region in drawn} == {2}
        drawn.clear()
        user.editor.set_faults([Fault(3, 13, "no precision 'floot16': use float16")])
        assert drawn == []
        user.editor.set_faults([])
        assert user.row(2) == "      conv_1: floot16"


async def test_a_message_without_room_stands_in_the_last_line_while_the_cursor_is_there() -> None:
    message = "has a value that no rule knows: " + "long " * 30
    async with editing(cfg(), (40, 10)) as user:
        user.editor.set_faults([Fault(5, 1, message), Fault(10, 1, message)])
        assert user.row(4).endswith("…")
        last = user.row(9)
        await user.press(*["down"] * 4)
        assert user.editor.fault_here == Fault(5, 1, message)
        assert user.row(9).startswith("! has a value that no rule knows: long")
        assert user.row(9).endswith("…")
        await user.press("down")
        assert user.row(9) == last
        await user.press(*["down"] * 4)
        assert user.row(0).startswith("! has a value"), "never over the line that it is about"
        assert user.row(9).startswith("!         max:  has")


async def test_faults_move_with_their_lines_until_the_text_is_checked_again() -> None:
    async with editing("a: 1\nb: 2\nc: 3\n") as user:
        user.editor.set_faults([Fault(2, 1, "is wrong")])
        await user.press("enter")
        assert [row[:1] for row in user.rows()[:4]] == ["", " ", "!", " "]
        await user.press("delete", "delete", "delete", "delete", "delete")
        assert user.row(1).startswith("! b: 2")
        user.editor.patch("x\ny\n" + user.editor.text)
        assert user.row(3).startswith("! b: 2")


async def test_faults_are_gone_through_in_the_order_of_lines() -> None:
    async with editing(cfg(30)) as user:
        user.editor.set_faults([Fault(400, 9, "second"), Fault(20, 9, "first"), Fault(9999, 1, "at the end")])
        last = len(cfg(30).splitlines()) + 1
        for step, line in ((1, 20), (1, 400), (1, last), (-1, 400)):
            assert user.editor.next_fault(step)
            assert user.editor.line == line
            if line == last:
                assert not user.editor.next_fault(1)
            await user.pilot.pause()
        assert user.editor.fault_here == Fault(400, 9, "second")
        assert user.app.said == ["moved to 20", "moved to 400", f"moved to {last}", "moved to 400"]


async def test_a_fault_of_the_whole_text_is_at_its_start() -> None:
    async with editing(cfg()) as user:
        user.editor.set_faults([Fault(0, 0, "is too large for a cfg")])
        assert user.row(0) == "! # made for a test  is too large for a cfg"


# Between text and graph


async def test_the_text_follows_a_tensor_and_tells_which_it_is_at() -> None:
    async with editing(cfg(40, conv_30="int16")) as user:
        assert user.editor.go_to("conv_30")
        assert user.editor.line == 3
        assert user.editor.go_to("conv_29")
        line = user.editor.line
        assert cfg(40, conv_30="int16").splitlines()[line - 1] == "    conv_29:"
        assert any("conv_29:" in row for row in user.rows())
        await user.press(*["down"] * 9)
        assert user.editor.tensor_at_cursor == "conv_29"
        assert user.editor.go_to("conv_29")
        assert user.editor.line == line + 9, "in the middle of its row is at the tensor too"
        assert not user.editor.go_to("conv")
        await user.press("ctrl+home")
        assert user.editor.tensor_at_cursor is None
        assert user.app.said[-1] == "moved to 1"


async def test_an_edit_in_the_graph_leaves_the_cursor_and_the_view_in_their_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with editing(cfg(40)) as user:
        user.editor.go_to("conv_20")
        await user.press("down", "down", "end")
        shown, drawn = user.rows(), user.drawing(monkeypatch)
        user.editor.patch(cfg(40, conv_3="int16"))
        assert user.rows() == shown
        assert drawn == [], "what changed is not in sight"
        await user.type("x")
        assert "        qmethod: layerx" in user.editor.text
        changes = len(user.app.changes)
        assert changes == 1, "only a person's edits are told"


async def test_a_patch_draws_only_the_lines_that_look_different(monkeypatch: pytest.MonkeyPatch) -> None:
    async with editing(cfg(3, conv_1="int16")) as user:
        drawn = user.drawing(monkeypatch)
        user.editor.patch(cfg(3, conv_1="float16"))
        assert drawn == [Region(14, 2, 7, 1)]
        assert user.row(2) == "      conv_1: float16"


async def test_an_undone_change_is_gone_to() -> None:
    async with editing(cfg(40)) as user:
        await user.press("ctrl+end", "x")
        user.editor.patch(cfg(40, conv_3="int16"), follow=True)
        user.editor.patch(cfg(40), follow=True)
        assert user.editor.line == 2
        assert any("quantize_parameters" in row for row in user.rows())


async def test_a_search_selects_what_it_finds() -> None:
    async with editing(cfg(40)) as user:
        assert user.editor.find("conv_3", 0)
        assert user.editor.selected_text == "conv_3"
        line = user.editor.line
        assert user.editor.find("conv_30", 0)
        assert user.editor.selected_text == "conv_30"
        assert user.editor.find("conv_3", -1)
        assert user.editor.line == line
        assert not user.editor.find("relu", 1)
        assert user.editor.line == line


async def test_a_click_puts_the_cursor_where_it_points() -> None:
    async with editing(cfg(3, conv_1="int16")) as user:
        await user.pilot.click(CfgEditor, offset=(8, 2))
        await user.type("X")
        assert user.row(2) == "      coXnv_1: int16"
        await user.pilot.click(CfgEditor, offset=(70, 3))
        await user.type("Y")
        assert user.row(3) == "  quantize_parameters:Y"
