"""The cfg's text, edited in place: keys, cursor, faults at their lines, and only changed cells drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from textual import events
from textual.geometry import Offset, Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from engine.summaries import Fault
from rknn_tui.palette import Palette
from rknn_tui.symbols import Symbols
from rknn_tui.text.cfg_lines import line_of, tensor_at
from rknn_tui.text.cfg_rows import GUTTER, message_cells, row_cells, shows_all_of
from rknn_tui.text.text_buffer import Place, TextBuffer, line_after
from rknn_tui.text.text_cells import Cell, changed_cells, column_at, first_shown, padded, strip_of_cells, width_of
from rknn_tui.text.text_keys import EDITS, MOVES, RUNS, Edit, insertion, line_at_cursor

_MODIFIERS = ("alt+", "ctrl+", "super+", "meta+", "hyper+")
_PASTED_BREAK = re.compile("\r\n|\r|\n")


class CfgEditor(Widget, can_focus=True):
    """A text editor on the Line API: Textual's own paints all its lines for every key, 3.4 kB in 80x24.

    A line with a fault has `!` before it and the message behind it, or, while the cursor is there and the message does
    not fit, in the editor's last line. A line that is too long is drawn from its start, and the cursor's own around the
    cursor: to scroll all lines sideways would paint all of them. Keys that edit nothing bubble, tab, escape and those
    for undo among them: what is undone is the screen's matter.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = "CfgEditor { height: 1fr; width: 1fr; }"

    class Changed(Message):
        """A person changed the text. `continues`: it goes on with the change before, to be undone along with it."""

        def __init__(self, text: str, continues: bool) -> None:
            super().__init__()
            self.text = text
            self.continues = continues

    class Moved(Message):
        """The cursor is on another line, by a person's key, click or search."""

    class Copied(Message):
        """Text was copied or cut, for the terminal's clipboard too."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Refused(Message):
        """A key would have changed the text while it is read only."""

    def __init__(self, palette: Palette, symbols: Symbols, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.palette = palette
        self.symbols = symbols
        self.read_only = False
        self.top = 0
        self._buffer = TextBuffer()
        self._faults: dict[int, Fault] = {}
        self._clipboard = ""
        # The cell in which up and down try to stay, the first column drawn of the cursor's line, the last edit.
        self._wanted: int | None = None
        self._first = 0
        self._last_edit: tuple[str, Place] | None = None
        self._drawn: dict[int, tuple[object, list[Cell]]] = {}

    # What the screen asks and tells

    @property
    def text(self) -> str:
        """The whole text."""
        return self._buffer.text

    @property
    def line(self) -> int:
        """The cursor's line, from 1."""
        return self._buffer.cursor.line + 1

    @property
    def selected_text(self) -> str:
        """What is selected, or ''."""
        selection = self._buffer.selection
        return self._buffer.between(*selection) if selection else ""

    @property
    def tensor_at_cursor(self) -> str | None:
        """The tensor whose entry the cursor's line is in."""
        return tensor_at(self._buffer.lines, self._buffer.cursor.line)

    @property
    def fault_here(self) -> Fault | None:
        """The fault of the cursor's line."""
        return self._faults.get(self._buffer.cursor.line)

    @property
    def page(self) -> int:
        """Lines in sight."""
        return max(self.size.height, 1)

    def show(self, text: str) -> None:
        """Show another text, with the cursor at its start and without faults."""
        self._buffer = TextBuffer(text)
        self._faults = {}
        self.top = self._first = 0
        self._wanted = self._last_edit = None
        self._redraw()

    def patch(self, text: str, *, follow: bool = False) -> None:
        """Become `text`, which is nearly the same: cursor, selection, faults and view stay with their lines.

        follow: put the cursor behind the last line that changed, as after an undo.
        """
        before = self._buffer.cursor.line
        change = self._buffer.change_to(text)
        if change is None:
            return
        start, end, stop = change
        self._shift_faults(start, end, stop)
        self.top += self._buffer.cursor.line - before
        self._wanted = self._last_edit = None
        if follow:
            self._buffer.cursor, self._buffer.anchor = self._buffer.end_of(max(stop.line - 1, start.line)), None
        self._scroll_into_sight(centre=follow)
        self._redraw()

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Mark these and no other faults; of several in a line the first counts."""
        rows: dict[int, Fault] = {}
        for fault in faults:
            rows.setdefault(min(max(fault.line, 1), len(self._buffer.lines)) - 1, fault)
        self._faults = rows
        self._redraw()

    def next_fault(self, step: int) -> bool:
        """Go to the nearest line with a fault, onwards (1) or backwards (-1); False when there is none."""
        here = self._buffer.cursor.line
        rows = [row for row in self._faults if (row - here) * step > 0]
        if not rows:
            return False
        row = min(rows, key=lambda row: abs(row - here))
        self._go(self._buffer.clamped(row, self._faults[row].column - 1), centre=True)
        return True

    def go_to(self, tensor: str) -> bool:
        """Go to a tensor's line, among the wishes or else among the rows; False when it has none. Posts nothing."""
        if self.tensor_at_cursor == tensor:
            return True
        row = line_of(self._buffer.lines, tensor)
        if row is None:
            return False
        self._go(Place(row, self._buffer.indent(row)), centre=True, tell=False)
        return True

    def find(self, text: str, step: int) -> bool:
        """Select the next `text` (1), the one before (-1), or the one here or next (0, while it is typed).

        The search goes on at the other end. Capitals matter only where `text` has some. False when it is nowhere.
        """
        found = self._buffer.find(text, step)
        if found is None:
            return False
        start, end = found
        self._go(end, centre=True, anchor=start)
        return True

    # Edits

    def insert(self, text: str) -> None:
        """Put `text` at the cursor, or in place of what is selected, as a person's edit."""
        self._do(insertion(self._buffer, text, "paste"))

    def _do(self, edit: Edit) -> None:
        buffer, before = self._buffer, self._buffer.cursor
        if self.read_only:
            self.post_message(self.Refused())
            return
        if edit.empty:
            return
        alone = edit.kind not in RUNS or buffer.selection is not None or edit.start.line != edit.end.line
        continues = not alone and self._last_edit == (edit.kind, before)
        stop = buffer.replace(edit.start, edit.end, edit.text)
        self._shift_faults(edit.start, edit.end, stop)
        self._last_edit = None if alone else (edit.kind, stop)
        buffer.cursor, buffer.anchor, self._wanted = stop, None, None
        self._scroll_into_sight()
        self._redraw()
        self.post_message(self.Changed(buffer.text, continues))
        if stop.line != before.line:
            self.post_message(self.Moved())

    def _copy(self, *, cut: bool) -> None:
        """Copy or cut what is selected, or else the whole line."""
        span = self._buffer.selection or line_at_cursor(self._buffer)
        text = self._buffer.between(*span)
        if text:
            self._clipboard = text
            self.post_message(self.Copied(text))
        if cut:
            self._do(Edit(*span, "", "cut"))

    def _shift_faults(self, start: Place, end: Place, stop: Place) -> None:
        # Until the text is checked again, they stay with their lines.
        if self._faults and end.line != stop.line:
            self._faults = {line_after(row, start, end, stop): fault for row, fault in self._faults.items()}

    # Moves

    def _go(self, place: Place, *, centre: bool = False, anchor: Place | None = None, tell: bool = True) -> None:
        before = self._buffer.cursor.line
        self._buffer.cursor, self._buffer.anchor = place, anchor
        self._last_edit = self._wanted = None
        self._scroll_into_sight(centre=centre)
        self._redraw()
        if tell and place.line != before:
            self.post_message(self.Moved())

    def _move(self, key: str) -> bool:
        """Move, or select, as the key says; False for another key."""
        buffer, selecting = self._buffer, "shift+" in key
        key = key.replace("shift+", "")
        anchor = (buffer.cursor if buffer.anchor is None else buffer.anchor) if selecting else None
        lines = {"up": -1, "down": 1, "pageup": -self.page, "pagedown": self.page}.get(key)
        if lines is not None:
            self._move_lines(lines, anchor, page=abs(lines) > 1)
        elif buffer.selection and not selecting and key in ("left", "right"):
            self._go(buffer.selection[key == "right"])
        elif key in MOVES:
            self._go(MOVES[key](buffer, buffer.cursor), anchor=anchor)
        else:
            return False
        return True

    def _move_lines(self, lines: int, anchor: Place | None = None, *, page: bool = False) -> None:
        """Move up or down, staying in the cell in which such moves began; `page` takes the view along."""
        buffer, cursor, wanted = self._buffer, self._buffer.cursor, self._wanted
        if wanted is None:
            wanted = width_of(buffer.content(cursor.line)[: cursor.column], self.symbols)
        line = max(0, min(cursor.line + lines, len(buffer.lines) - 1))
        if page:
            self.top += line - cursor.line
        self._go(Place(line, column_at(buffer.content(line), wanted, self.symbols)), anchor=anchor)
        self._wanted = wanted

    def _scroll_into_sight(self, *, centre: bool = False) -> None:
        line, page = self._buffer.cursor.line, self.page
        if centre and not self.top <= line < self.top + page:
            self.top = line - page // 3
        last = max(len(self._buffer.lines) - page, 0)
        self.top = max(0, min(max(self.top, line - page + 1), line, last))
        width = self.size.width - GUTTER
        content = self._buffer.content(line)
        self._first = first_shown(content, self._buffer.cursor.column, width, self._first, self.symbols)

    # Drawing

    def _redraw(self) -> None:
        """Draw the cells in sight that differ from what was drawn."""
        width = self.size.width
        for y in range(self.size.height):
            look = self._look(y)
            drawn = self._drawn.get(y, (None, []))
            if drawn[0] == look and len(drawn[1]) == width:
                continue
            cells = self._cells(y)
            self._drawn[y] = look, cells
            # After a resize this may come before its event.
            span = changed_cells(drawn[1], cells) if len(drawn[1]) == width else (0, width)
            if span is not None:
                self.refresh(Region(span[0], y, span[1] - span[0], 1))
        self._place_terminal_cursor()

    def _place_terminal_cursor(self) -> None:
        # Where input methods open their window. Textual sends it along with every paint in any case.
        if self.has_focus:
            cursor = self._buffer.cursor
            before = self._buffer.content(cursor.line)[self._first : cursor.column]
            x, y = GUTTER + width_of(before, self.symbols), cursor.line - self.top
            self.app.cursor_position = self.content_region.offset + Offset(x, y)

    def _look(self, y: int) -> object:
        """All that a row's cells depend on."""
        row = self.top + y
        message = self._message_at(y)
        if message is not None:
            return message
        if row >= len(self._buffer.lines):
            return None
        here = row == self._buffer.cursor.line
        cursor = (self._buffer.cursor.column, self._first, self.has_focus) if here else None
        return self._buffer.lines[row], self._faults.get(row), cursor, self._selected(row)

    def _cells(self, y: int) -> list[Cell]:
        row, width, message = self.top + y, self.size.width, self._message_at(y)
        if message is not None:
            return message_cells(message, width, self.symbols)
        if row >= len(self._buffer.lines):
            return padded([], width)
        cursor, fault = self._buffer.cursor, self._faults.get(row)
        here = row == cursor.line
        return row_cells(
            self._buffer.content(row),
            width,
            self.symbols,
            fault=fault.message if fault else None,
            marked=here and not self.has_focus,
            first=self._first if here else 0,
            cursor=cursor.column if here and self.has_focus else -1,
            selected=self._selected(row),
        )

    def _message_at(self, y: int) -> str | None:
        """What stands in row `y` instead of text: the message of the cursor's line that has no room behind it."""
        fault, line = self.fault_here, self._buffer.cursor.line
        # In the last row, or the first: never over the line that it is about.
        place = self.page - 1 if line < self.top + self.page - 1 else 0
        if fault is None or y != place or self.page < 3:
            return None
        content = self._buffer.content(line)
        whole = shows_all_of(fault.message, content, self.size.width, self.symbols, self._first)
        return None if whole else fault.message

    def _selected(self, row: int) -> tuple[int, int]:
        """The columns of a line that are selected, its break counted as one."""
        selection = self._buffer.selection
        if selection is None or not selection[0].line <= row <= selection[1].line:
            return 0, 0
        start, end = selection
        whole = len(self._buffer.content(row)) + 1
        return start.column if row == start.line else 0, end.column if row == end.line else whole

    def render_line(self, y: int) -> Strip:
        drawn = self._drawn.get(y)
        if drawn is None or len(drawn[1]) != self.size.width:
            drawn = self._drawn[y] = self._look(y), self._cells(y)
        return strip_of_cells(drawn[1], self.palette)

    # Events

    def on_resize(self) -> None:
        self._drawn.clear()
        self._scroll_into_sight()
        self.refresh()

    def on_focus(self, event: events.Focus) -> None:
        self._take_focus(event, True)

    def on_blur(self, event: events.Blur) -> None:
        self._take_focus(event, False)

    def _take_focus(self, event: events.Event, focus: bool) -> None:
        # Textual's own handler paints the whole widget; only the cursor looks different.
        event.prevent_default()
        self.has_focus = focus
        self._redraw()

    def on_key(self, event: events.Key) -> None:
        key, typed = event.key, event.character
        if key in EDITS:
            self._do(EDITS[key](self._buffer))
        elif key in ("ctrl+c", "ctrl+x") and (key == "ctrl+x" or self._buffer.selection):
            self._copy(cut=key == "ctrl+x")
        elif key == "ctrl+v":
            self.insert(self._clipboard)
        elif typed and typed.isprintable() and not key.startswith(_MODIFIERS):
            self._do(insertion(self._buffer, typed, "type"))
        elif not self._move(key):
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        # Terminals send a carriage return for each line's end.
        self.insert(_PASTED_BREAK.sub(self._buffer.line_break, event.text))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        row = min(self.top + event.y, len(self._buffer.lines) - 1)
        first = self._first if row == self._buffer.cursor.line else 0
        x = max(event.x - GUTTER, 0)
        self._go(Place(row, column_at(self._buffer.content(row), x, self.symbols, first)))

    def on_mouse_scroll_down(self) -> None:
        self._move_lines(3)

    def on_mouse_scroll_up(self) -> None:
        self._move_lines(-3)
