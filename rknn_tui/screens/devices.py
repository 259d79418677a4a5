"""The boards that there are, live: what each is, what keeps it from being used, and what can be measured on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.geometry import Size
from textual.message import Message

from engine.board_texts import load_text, megabytes, told
from engine.boards import READY, Board, BoardFacts
from rknn_tui.bench.boards import Boards, Listing
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.screens.rows import DetailScreen, Table, progress_facts
from rknn_tui.symbols import drawable, fit
from rknn_tui.widgets.row_list import Cells, RowColumn, RowList, column_widths
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

NOTHING = (
    "no board is connected\nConnect the board's USB port for data (OTG) to this computer and switch the board on; or "
    "run adb connect ADDRESS for one on the network; or list boards that SSH reaches in devices.yaml (see the README)"
)
CELLS_OF_ID = 20
"""A longer id is cut at the front where there is little room: serial numbers of a batch differ at their ends."""
PLACES_BEFORE_NOTE = 4
"""The columns that every row has: the mark, id, by and state. In the place of the others stands what to do."""


class BoardsChanged(Message):
    """The process that watches the boards told something new."""

    def can_replace(self, message: Message) -> bool:
        """Only the latest counts when the app is behind."""
        return isinstance(message, BoardsChanged)


class BoardList(RowList):
    """A list whose rows may end with a text over all the columns that are left."""

    def _placed(self, cells: Cells) -> list[Piece]:
        if len(cells) == len(self._columns):
            return super()._placed(cells)
        widths = column_widths(self._columns, self.size.width - 2)
        line: list[Piece] = []
        for (text, role), width in zip(cells[:-1], widths, strict=False):
            if width:
                line += [(" ", "text")] * bool(line)
                line.append((fit(drawable(text, self.symbols), width, self.symbols), role))
        text, role = cells[-1]
        room = self.size.width - 2 - length(line) - 1
        return [*line, (" ", "text"), (fit(drawable(text, self.symbols), room, self.symbols), role)]


class DevicesScreen(DetailScreen):
    """One row a board. The process that watches boards starts when the screen is first shown, and reads what changes
    by itself only while it is in front."""

    CSS_PATH: ClassVar = "devices.tcss"
    PLACE: ClassVar[str] = "devices"
    TITLE_TEXT: ClassVar[str] = "devices"

    def __init__(self, app: Workshop, bench: Any = None, boards: Boards | None = None) -> None:
        super().__init__(app)
        if bench is not None:
            self.bench = bench
        self.boards = app.boards if boards is None else boards
        self.boards.changed = self._told
        self._listing = self.boards.listing
        self._wanted = ""
        self._stood_in = ""

    def _told(self) -> None:
        # Called in the thread that reads; posting is the one thing that any thread may do.
        self.post_message(BoardsChanged())

    def compose_body(self) -> ComposeResult:
        yield TextLines(self.palette, id="columns")
        yield BoardList(self.palette, self.symbols, id="rows")
        yield TextLines(self.palette, id="about")

    def on_screen_resume(self) -> None:
        self.boards.look(True)

    def on_screen_suspend(self) -> None:
        self.boards.look(False)

    def on_boards_changed(self) -> None:
        self.refresh_rows()

    @property
    def board(self) -> Board | None:
        """The board under the cursor."""
        row = self.rows.current
        return self._listing.boards[row] if row is not None and row < len(self._listing.boards) else None

    @property
    def chosen(self) -> str:
        """The id of the board to run on, '' for none."""
        return str(self.bench.board_runs.chosen) if self.bench is not None else ""

    def refresh_rows(self, cursor: int | None = None) -> None:
        if self.composed:
            cursor = self._take(self.boards.listing) if cursor is None else cursor
        super().refresh_rows(cursor)

    def _take(self, listing: Listing) -> int:
        """The row to stand on in another list: that of the same board. Where it is gone, its place, and it is gone back
        to when it comes again, unless the cursor was moved."""
        here = self.board
        if here is not None and here.id != self._stood_in:
            self._wanted, self._stood_in = here.id, ""
        self._listing = listing
        ids = [one.id for one in listing.boards]
        if self._wanted in ids:
            self._stood_in = ""
            return ids.index(self._wanted)
        row = max(min(self.rows.cursor, len(ids) - 1), 0)
        if self._stood_in in ids:
            row = ids.index(self._stood_in)
        self._stood_in = ids[row] if ids else ""
        return row

    # What is shown

    def useless(self) -> frozenset[str]:
        return frozenset() if self.bench is not None and self.bench.running is not None else frozenset({"cancel"})

    def title_line(self, size: Size) -> Line:
        listing = self._listing
        facts: list[Piece] = [(self.TITLE_TEXT, "title")]
        warning = ""
        if listing.heard:
            facts.append((counted(len(listing.boards), "board"), "text"))
        elif not listing.ended:
            facts.append(("looking for boards", "muted"))
        if self.bench is not None:
            facts += progress_facts(self.bench.search_job)
        if self.chosen:
            facts.append((f"runs on {self.chosen}", "text"))
            one = next((one for one in listing.boards if one.id == self.chosen), None)
            if listing.heard and one is None:
                warning = "not connected"
            elif one is not None:
                warning = self._mismatch(one)
        if not warning and listing.boards and self._faults:
            warning = self._faults[0]
        line = self.joined(facts, size.width)
        room = size.width - length(line) - 3
        if warning and room > 0:
            shown = drawable(warning, self.symbols)
            line = [*line, ("  ", "text"), (fit(shown, min(cell_len(shown), room), self.symbols), "warning")]
        return line

    @property
    def _faults(self) -> list[str]:
        listing = self._listing
        ended = [f"{listing.ended}: {self.keymap.shown('refresh')} starts it again"] if listing.ended else []
        return [*ended, *listing.faults]

    def table(self) -> Table:
        boards = self._listing.boards
        facts = [one.facts or BoardFacts() for one in boards]
        cores = max((len(one.npu_load) for one in facts), default=0)

        def most(texts: list[str]) -> int:
            return max((cell_len(drawable(text, self.symbols)) for text in texts), default=0)

        id_cells = most([one.id for one in boards])
        # What changes by itself has a width that no reading changes: a reading then costs its own cells alone.
        columns = (
            RowColumn("", 1),
            RowColumn("id", id_cells, least=min(id_cells, CELLS_OF_ID), keep_end=True),
            RowColumn("by", most([one.transport for one in boards]), rank=3),
            RowColumn("state", most([_state(one) for one in boards])),
            RowColumn("chip", max(most([self._chip(one) for one in boards]), 7), rank=1),
            RowColumn("system", most([_system(one) for one in boards]), least=8, rank=7),
            RowColumn("runtime", most([one.runtime for one in facts]), rank=4),
            RowColumn("driver", most([one.driver for one in facts]), rank=5),
            RowColumn("free MB", 7, rank=2, right=True),
            RowColumn("°C" if self.symbols.unicode else "C", 3, rank=2, right=True),
            RowColumn("NPU load", 4 * cores + 1, rank=6, right=True),
        )
        chosen = self.chosen

        def cells(row: int) -> Cells:
            one, told = boards[row], facts[row]
            ready = one.state == READY
            start: list[Piece] = [
                (self.symbols.mark if one.id == chosen else " ", "key"),
                (one.id, "text"),
                (one.transport, "muted"),
                (_state(one), "text" if ready and not told.problems else "warning"),
            ]
            if not ready:
                return [*start, (one.note or "cannot be used now", "warning")]
            return [
                *start,
                (self._chip(one), "warning" if self._mismatch(one) else "text"),
                (_system(one), "muted"),
                (told.runtime or "-", "text"),
                (told.driver or "-", "text"),
                (megabytes(told.free_memory), "text"),
                ("-" if told.temperature is None else f"{told.temperature:.0f}", "text"),
                (load_text(told.npu_load), "text"),
            ]

        return Table(columns, len(boards), cells, "" if boards else self._empty())

    def _empty(self) -> str:
        key = self.keymap.shown("refresh")
        if self._listing.ended:
            return "\n".join(self._faults)
        if self._listing.faults:
            return "\n".join([*self._listing.faults, f"{key} asks again"])
        return f"{NOTHING}; {key} asks again" if self._listing.heard else ""

    @property
    def _target(self) -> str:
        return str(self.bench.target) if self.bench is not None and self.bench.path else ""

    def _chip(self, one: Board) -> str:
        chip = one.facts.chip if one.facts is not None else ""
        return f"{chip}!" if self._mismatch(one) else chip or "-"

    def _mismatch(self, one: Board) -> str:
        """In words that the board's chip is not what the model is for; '' where it is, or is not known."""
        chip, target = one.facts.chip if one.facts is not None else "", self._target
        return f"its chip is {chip}, the model is for {target}" if chip and target and chip != target else ""

    def about(self, size: Size) -> list[Line]:
        one = self.board
        if one is None:
            return []
        width = self.app.size.width - 1
        lines: list[Line] = [[(f" {self.symbols.rule} {drawable(one.id, self.symbols)}", "title")]]
        if one.state != READY:
            lines += self.wrapped("state", f"{one.state}: {one.note}" if one.note else one.state, width, "warning")
        for problem in one.facts.problems if one.facts is not None else ():
            lines += self.wrapped("problem", problem, width, "warning")
        if text := self._mismatch(one):
            lines += self.wrapped("target", f"{text}: {self.keymap.shown('target')} changes it", width, "warning")
        if one.facts is None and one.state == READY:
            lines += self.wrapped("facts", "the board is being asked", width, "muted")
        pairs = [("model", one.model), ("product", one.product), ("plugged in at", one.path), *told(one.facts)]
        row: Line = []
        for name, text in [(name, text) for name, text in pairs if text]:
            shown = drawable(text if self.symbols.unicode else text.replace("°C", "C"), self.symbols)
            if row and length(row) + cell_len(name) + cell_len(shown) + 3 > width:
                lines.append(row)
                row = []
            if cell_len(name) + cell_len(shown) + 2 > width:
                lines += self.wrapped(name, shown, width)
            else:
                row = [*row, (" " if not row else "  ", "text"), (f"{name} ", "muted"), (shown, "text")]
        lines += [row] if row else []
        for fault in self._faults:
            lines += self.wrapped("not asked", fault, width, "warning")
        return lines

    # What is done

    def do_refresh(self) -> Reply:
        self.boards.refresh()
        self.refresh_rows()
        return None

    def do_choose_board(self) -> Reply:
        one = self.board
        if one is None:
            return Notice("there is no board to choose", "warning")
        if one.id != self.chosen and (refusal := _not_ready(one)):
            return refusal
        reply: Reply = self.bench.board_runs.choose("" if one.id == self.chosen else one.id)
        self.refresh_rows()
        return reply

    def do_board_time(self) -> Reply:
        return self._on_board("time")

    def do_board_memory(self) -> Reply:
        return self._on_board("memory")

    def do_board_accuracy(self) -> Reply:
        return self._on_board("accuracy")

    def _on_board(self, what: str) -> Reply:
        one = self.board
        if one is None:
            return Notice("there is no board to run on", "warning")
        if not self.bench.path:
            return Notice(f"no model is open: {self.keymap.shown('open')} opens one", "warning")
        if refusal := _not_ready(one):
            return refusal
        reply: Reply = getattr(self.bench.board_runs, what)(one.id)
        self.refresh_rows()
        return reply

    def do_cancel(self) -> Reply:
        reply: Reply = self.bench.cancel()
        return reply


def _not_ready(one: Board) -> Reply:
    return Notice(f"{one.id} is not ready: {one.note or one.state}", "warning") if one.state != READY else None


def _state(one: Board) -> str:
    if one.state != READY:
        return one.state
    return "problem" if one.facts is not None and one.facts.problems else "ready"


def _system(one: Board) -> str:
    return (one.facts.system if one.facts is not None else "") or one.model or "-"
