"""Two evaluated states of the model side by side, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from textual.app import ComposeResult
from textual.geometry import Size

from engine.summaries import ErrorPair
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.runs import Run
from rknn_tui.comparing import Pair, pairs, signed, summary
from rknn_tui.graph.bars import digits
from rknn_tui.pieces import Line, Piece
from rknn_tui.screens.candidates import decibels
from rknn_tui.screens.choose import ChooseScreen
from rknn_tui.screens.rows import RowScreen, Table
from rknn_tui.symbols import fit
from rknn_tui.widgets.row_list import Cells, RowColumn, RowList
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

LEFT, RIGHT = SIDES = ("left", "right")
_FILE = "file"


class CompareBench(Protocol):
    """What the screen needs of the workbench."""

    @property
    def runs(self) -> Sequence[Run]:
        """What was evaluated, the oldest first."""

    def compare_file(self, side: str) -> Reply:
        """Ask for a cfg file and evaluate it; then the screen's `choose` is called with the side and the run."""

    def go_to_layer(self, name: str) -> Reply:
        """Put the tune screen's cursor on the layer; a warning where there is none of that name."""


class CompareScreen(RowScreen):
    """One row a layer, with a sign where the sides differ. Without a choice, the first and the latest run are shown."""

    CSS_PATH: ClassVar = "compare.tcss"
    PLACE: ClassVar[str] = "compare"
    TITLE_TEXT: ClassVar[str] = "compare"

    def __init__(self, app: Workshop, bench: CompareBench) -> None:
        super().__init__(app)
        self._bench = bench
        self._chosen: dict[str, Run] = {}
        self._only = False
        self._compared: tuple[Run, Run] | None = None
        self._pairs: list[Pair] = []
        self._shown: list[Pair] = []

    def compose_body(self) -> ComposeResult:
        yield TextLines(self.palette, id="about")
        yield TextLines(self.palette, id="columns")
        yield RowList(self.palette, self.symbols, id="rows")

    def side(self, side: str) -> Run | None:
        """The run on the 'left' or the 'right'."""
        runs = self._bench.runs
        if side in self._chosen:
            run = self._chosen[side]
            # The state of this moment is another one after an edit; it goes on under its label.
            known = any(one is run for one in runs)
            return run if known else next((one for one in runs if one.label == run.label), run)
        if side == LEFT:
            return runs[0] if runs else None
        return runs[-1] if len(runs) > 1 else None

    def choose(self, side: str, run: Run) -> None:
        """Put a run on one side."""
        self._chosen[side] = run
        self.refresh_rows()

    def forget(self) -> None:
        """The runs are another model's now: what was chosen is of no use."""
        self._chosen.clear()
        self.refresh_rows()

    @property
    def pair(self) -> Pair | None:
        """The layer under the cursor."""
        row = self.rows.current
        return self._shown[row] if row is not None and row < len(self._shown) else None

    def refresh_rows(self, cursor: int | None = None) -> None:
        if not self.composed:
            return
        left, right = self.side(LEFT), self.side(RIGHT)
        known = self._compared
        if left is None or right is None:
            self._compared, self._pairs = None, []
        elif known != (left, right):
            self._compared, self._pairs = (left, right), pairs(left, right)
        name = self.pair.name if self.pair is not None else ""
        self._shown = [pair for pair in self._pairs if pair.sign] if self._only else self._pairs
        if cursor is None:
            # The cursor stays on its layer while others come and go around it.
            cursor = next((row for row, pair in enumerate(self._shown) if pair.name == name), None)
        super().refresh_rows(cursor)

    def progress_changed(self) -> None:
        # What is compared has ended.
        return

    def title_line(self, size: Size) -> Line:
        facts: list[Piece] = [(self.TITLE_TEXT, "title")]
        if self._only:
            facts.append(("only differences", "warning"))
        return self.joined(facts, size.width)

    def on_marked_list_moved(self) -> None:
        # What stands above the rows is about both sides, not about the current row.
        return

    def about(self, size: Size) -> list[Line]:
        lines = [self._side_line(side, self.side(side), size.width) for side in SIDES]
        told = summary(self._pairs) if self._compared is not None else ""
        return [*lines, [(f" {fit(told, max(size.width - 2, 1), self.symbols)}", "muted")]]

    def _side_line(self, side: str, run: Run | None, width: int) -> Line:
        key = self.keymap.shown(f"choose_{side}")
        if run is None:
            return self.joined([(f"{side:<5}", "muted"), (f"nothing; {key} chooses", "text")], width)
        facts: list[Piece] = [(f"{side:<5}", "muted"), (run.label, "title")]
        if run.quality is not None:
            facts.append((f"cosine {digits(run.quality.cosine)}", "text"))
            facts.append((f"SNR {decibels(run.quality)} dB", "text"))
        facts += [(run.time, "text"), (run.target, "text")]
        if run.quality is not None:
            facts.append((f"lowest {digits(run.quality.lowest)}", "muted"))
        facts.append((counted(len(run.wishes), "line"), "muted"))
        return self.joined(facts, width)

    def table(self) -> Table:
        shown, key = self._shown, self.keymap.shown
        longest = [max((len(_precision(pair.precisions[side])) for pair in shown), default=0) for side in (0, 1)]
        columns = (
            RowColumn("", 2),
            RowColumn("layer", max((len(pair.name) for pair in shown), default=0), least=12, keep_end=True),
            RowColumn("left", longest[0], least=min(longest[0], 7), rank=1),
            RowColumn("right", longest[1], least=min(longest[1], 7), rank=1),
            RowColumn("cos left", 8, rank=2),
            RowColumn("right", 8, rank=2),
            RowColumn("change", 8, rank=3, right=True),
        )

        def cells(row: int) -> Cells:
            pair = shown[row]
            left, right = pair.precisions
            moved = "changed" if "P" in pair.sign else "text"
            return (
                (pair.sign, "bad" if "-" in pair.sign else "mark"),
                (pair.name, "text" if pair.sign else "muted"),
                (_precision(left), "text"),
                (_precision(right), moved),
                (_cosine(pair.errors[0]), "text"),
                (_cosine(pair.errors[1]), "text"),
                (signed(pair.difference), "bad" if "-" in pair.sign else "text"),
            )

        return Table(columns, len(shown), cells, self._hint(key("choose_left"), key("choose_right")))

    def _hint(self, left: str, right: str) -> str:
        if self._compared is not None and self._only and self._pairs:
            return f"no differences; {self.keymap.shown('only_differences')} shows all layers"
        if self._compared is not None:
            return "neither side has layers"
        if not self._bench.runs:
            start = f"{self.keymap.shown('analyse')} on the layers' screen analyses a built model and keeps the result"
            return f"nothing was evaluated yet: {start}"
        more = "Change precisions and evaluate them for a second one"
        return f"there is one result. {more}, or choose a cfg file with {left} or {right}"

    def do_choose_left(self) -> Reply:
        return self._ask(LEFT)

    def do_choose_right(self) -> Reply:
        return self._ask(RIGHT)

    def _ask(self, side: str) -> Reply:
        runs = self._bench.runs
        if not runs:
            return Notice(self._hint("", ""), "warning")

        def chosen(id: str | None) -> None:
            if id == _FILE:
                self.tell(self._bench.compare_file(side))
            elif id is not None:
                self.choose(side, runs[int(id)])

        rows = [(str(place), run.label, _run_words(run)) for place, run in reversed(list(enumerate(runs)))]
        rows.append((_FILE, f"a cfg file{self.symbols.ellipsis}", "asked for by its path, and evaluated"))
        title = f"what stands on the {side}, the latest first"
        help = "enter choose   type to search   esc back"
        self.app.push_screen(ChooseScreen(title, help, rows, self.palette, self.symbols), chosen)
        return None

    def do_next_difference(self) -> Reply:
        return self._go_to_difference(range(self.rows.cursor + 1, len(self._shown)))

    def do_previous_difference(self) -> Reply:
        return self._go_to_difference(range(min(self.rows.cursor, len(self._shown)) - 1, -1, -1))

    def _go_to_difference(self, rows: Iterable[int]) -> Reply:
        row = next((row for row in rows if self._shown[row].sign), None)
        if row is None:
            return Notice("no more differences this way")
        self.rows.move_to(row)
        return None

    def do_only_differences(self) -> Reply:
        self._only = not self._only
        self.refresh_rows()
        return None

    def do_go_to(self) -> Reply:
        pair = self.pair
        return self.leave_with(self._bench.go_to_layer(pair.name)) if pair is not None else None


def _precision(precision: str | None) -> str:
    return "none" if precision is None else precision


def _cosine(error: ErrorPair | None) -> str:
    return "" if error is None else digits(error.cosine)


def _run_words(run: Run) -> str:
    quality = f"cosine {digits(run.quality.cosine)}  " if run.quality is not None else ""
    return f"{quality}{run.time}  {run.target}  {counted(len(run.wishes), 'line')}"
