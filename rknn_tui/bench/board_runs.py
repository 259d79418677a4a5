"""What is measured on boards, beside a person's edits: time, memory and accuracy, and of which edits each is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from engine.boards import BoardMemory, BoardPerf, BoardRun, MeasuredLayer
from engine.history import EditState
from engine.summaries import AccuracyReport, BuildSummary, ErrorPair
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.searches import Search, Take
from rknn_tui.graph.bars import digits, milliseconds, size
from rknn_tui.graph.layer_values import LayerValues

if TYPE_CHECKING:
    from rknn_tui.bench.tuning_bench import TuningBench

TIME, MEMORY, ACCURACY = "time on the board", "memory on the board", "accuracy on the board"
ACCURACY_ON = "board_accuracy"
"""The subject of a question for the sample, before the board's id."""
Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What was measured: the build, compared as the very object, and the edits that were in force."""

    build: BuildSummary | None
    edits: EditState

    def same(self, other: Identity) -> bool:
        """Whether both are of one model."""
        return self.build is other.build and self.edits == other.edits


@dataclasses.dataclass(frozen=True)
class Measured(Generic[Found]):
    """A measurement and what it is of."""

    found: Found
    of: Identity


@dataclasses.dataclass(frozen=True)
class LayerOnBoard:
    """What boards told of one layer: the lines of the runtime's table that are its own, and how near its tensor came.

    `where_timed` and `where_compared` are None where there is nothing of that kind. `old_time` and `old_cosine` say
    that edits were made since.
    """

    lines: tuple[MeasuredLayer, ...] = ()
    where_timed: BoardRun | None = None
    old_time: bool = False
    float_model: ErrorPair | None = None
    simulator: ErrorPair | None = None
    where_compared: BoardRun | None = None
    old_cosine: bool = False

    @property
    def milliseconds(self) -> float:
        """The measured time; NaN where there is none."""
        return math.fsum(line.time_us for line in self.lines) / 1000 if self.lines else math.nan


class BoardRuns:
    """Measures on the chosen board, or on another one, and keeps what came of it until the model is another one.

    Nothing is dropped when edits are made: `old` tells what is no longer of the edits in force. `keep` writes down
    which board is chosen, `changed` is called where there are other numbers to show.
    """

    def __init__(self, bench: TuningBench) -> None:
        self._bench = bench
        self.chosen = ""
        """The id of the board to run on, '' for none."""
        self.keep: Callable[[], object] = lambda: None
        self.forget()

    def forget(self) -> None:
        """The model is another one: what was measured is of no use."""
        self.timed: Measured[BoardPerf] | None = None
        self.sized: Measured[BoardMemory] | None = None
        self.compared: Measured[AccuracyReport] | None = None
        self._lines: dict[str, tuple[MeasuredLayer, ...]] = {}
        self._pairs: dict[str, tuple[ErrorPair | None, ErrorPair | None]] = {}
        self._shown_old = False, False

    # What is known

    @property
    def perf(self) -> BoardPerf | None:
        """The last measurement of time."""
        return self.timed.found if self.timed is not None else None

    @property
    def memory_found(self) -> BoardMemory | None:
        """What a board told last of the memory that the model takes."""
        return self.sized.found if self.sized is not None else None

    @property
    def report(self) -> AccuracyReport | None:
        """The last comparison of layers on a board."""
        return self.compared.found if self.compared is not None else None

    @property
    def now(self) -> Identity:
        """The model as it is."""
        return Identity(self._bench.build, self._bench.editing.state)

    def old(self, measured: Measured[Any] | None) -> bool:
        """Whether something was measured of another build, or of other edits, than are in force."""
        return measured is not None and not measured.of.same(self.now)

    @property
    def has_layers(self) -> bool:
        """Whether something was measured of single layers."""
        return bool(self._lines or self._pairs)

    @property
    def stale(self) -> bool:
        """Whether something that is shown is old."""
        return any(map(self.old, (self.timed, self.sized, self.compared)))

    def of_layer(self, layer: str) -> LayerOnBoard | None:
        """What boards told of a layer; None where they told nothing."""
        lines, pairs = self._lines.get(layer, ()), self._pairs.get(layer)
        if not lines and pairs is None:
            return None
        found = LayerOnBoard(lines, self.perf.where if lines and self.perf else None, self.old(self.timed))
        if pairs is None:
            return found
        where = self.report.board if self.report is not None else None
        return dataclasses.replace(
            found, float_model=pairs[0], simulator=pairs[1], where_compared=where, old_cosine=self.old(self.compared)
        )

    def shown(self, values: Mapping[str, LayerValues]) -> Mapping[str, LayerValues]:
        """What rows show, with what was measured of their layers."""
        if not self.has_layers:
            return values
        old_time, old_cosine = self.old(self.timed), self.old(self.compared)
        found = dict(values)
        for name, value in values.items():
            lines, (entire, simulator) = self._lines.get(name), self._pairs.get(name, (None, None))
            if lines or entire or simulator:
                found[name] = dataclasses.replace(
                    value,
                    measured=math.fsum(line.time_us for line in lines) / 1000 if lines else math.nan,
                    measured_old=old_time,
                    board=simulator.cosine if simulator is not None else math.nan,
                    board_entire=entire.cosine if entire is not None else math.nan,
                    board_old=old_cosine,
                )
        return found

    def edited(self) -> bool:
        """Other edits are in force: whether rows say now that their measurements are old, or no longer do."""
        before, self._shown_old = self._shown_old, (self.old(self.timed), self.old(self.compared))
        return before != self._shown_old and self.has_layers

    # What is asked

    def choose(self, board: str) -> Reply:
        """Run on this board from now on."""
        self.chosen = board
        self.keep()
        return Notice(f"{board} is the board to run on" if board else "no board is chosen")

    def time(self, board: str = "") -> Reply:
        """Measure how long an inference and each of its layers take on a board."""
        model = self._model()
        if not isinstance(model, dict):
            return model

        def take(found: BoardPerf, of: Identity) -> Reply:
            self.timed, self._lines = Measured(found, of), self._by_layer(found)
            self._tell_rows()
            return self._told(perf_text(found), found.where)

        return self._ask(TIME, "board_perf", board, {"layers": True, **model}, take)

    def memory(self, board: str = "") -> Reply:
        """Ask how much memory the model takes on a board."""
        model = self._model()
        if not isinstance(model, dict):
            return model

        def take(found: BoardMemory, of: Identity) -> Reply:
            self.sized = Measured(found, of)
            self._tell_rows()
            return self._told(memory_text(found), found.where)

        return self._ask(MEMORY, "board_memory", board, model, take)

    def accuracy(self, board: str = "") -> Reply:
        """Compare what a board makes of every layer with the simulator, on the chosen sample."""
        if self._bench.board_only:
            return self._bench.without_source()
        model = self._model()
        if not isinstance(model, dict):
            return model
        board = board or self.chosen
        if not board:
            return self._no_board()
        sample = self._bench.sample_to_look_at()
        if not isinstance(sample, list):
            if sample is not None:
                return sample
            return self._bench.ask_sample(f"{ACCURACY_ON} {board}")

        def take(found: AccuracyReport, of: Identity) -> Reply:
            self.compared = Measured(found, of)
            told = {line.name: (line.board, line.board_simulator) for line in found.layers}
            self._pairs = {name: pairs for name, pairs in told.items() if pairs != (None, None)}
            self._tell_rows()
            return self._told(accuracy_text(found), found.board)

        return self._ask(ACCURACY, "board_accuracy", board, {"inputs": sample}, take)

    def _ask(
        self, name: str, method: str, board: str, params: Mapping[str, Any], take: Callable[[Any, Identity], Reply]
    ) -> Reply:
        board = board or self.chosen
        if not board:
            return self._no_board()
        if not self.chosen:
            self.choose(board)

        def begin() -> Take:
            # Edits that are made while it runs are not what is measured.
            of = self.now
            return lambda found: take(found, of)

        return self._bench.searches.start(Search(name, method, {"device": board, **params}, begin))

    def _no_board(self) -> Reply:
        key = self._bench.keymap.shown
        where = f"{key('screen_devices')} lists the boards"
        return Notice(f"no board is chosen: {where}, {key('choose_board')} chooses one there", "warning")

    def _model(self) -> dict[str, Any] | Reply:
        """The parameters that name what to run, or why nothing can be run now."""
        bench = self._bench
        if refusal := bench.refuse_unless_idle():
            return refusal
        if bench.board_only:
            return {"path": bench.path}
        if not bench.built:
            key = bench.keymap.shown
            ways = f"{key('build_int8')} quantizes to int8, {key('build_float16')} builds in float16"
            return Notice(f"nothing is built yet: {ways}", "warning")
        return {}

    def _told(self, text: str, where: BoardRun | None) -> Notice:
        """What a measurement came to; what the board's runtime has no answer to is one key away."""
        notes = where.notes if where is not None else ()
        for note in notes:
            self._bench.told(Notice(note))
        more = f"; {self._bench.keymap.shown('messages')} shows {counted(len(notes), 'note')}" if notes else ""
        return Notice(f"{text}{more}")

    def _by_layer(self, found: BoardPerf) -> dict[str, tuple[MeasuredLayer, ...]]:
        from engine.devices.perf_table import match_layers

        layers = self._bench.summary.layers if self._bench.summary is not None else ()
        # Of a vendor's file only the app knows the layers' names.
        names = {layer.name: (*layer.sources, *layer.outputs) for layer in layers}
        unknown = match_layers((one for one in found.layers if one.layer not in names), names)
        lines: dict[str, tuple[MeasuredLayer, ...]] = {}
        for line in (*(one for one in found.layers if one.layer in names), *unknown):
            if line.layer:
                lines[line.layer] = (*lines.get(line.layer, ()), line)
        return lines

    def _tell_rows(self) -> None:
        self._shown_old = self.old(self.timed), self.old(self.compared)
        self._bench.measured_changed()


def perf_text(found: BoardPerf) -> str:
    """What was measured of the time, in a sentence."""
    fastest, slowest = milliseconds(found.fastest_us / 1000), milliseconds(found.slowest_us / 1000)
    text = f"measured on {_place(found.where)}: median {milliseconds(found.median_us / 1000)} ms"
    return f"{text}, p95 {milliseconds(found.p95_us / 1000)} ms, {fastest} to {slowest} ms in {found.runs} runs"


def memory_text(found: BoardMemory) -> str:
    """What a board told of the memory, in a sentence."""
    parts = f"{size(found.weight_bytes)} weights, {size(found.internal_bytes)} between layers"
    return f"on {_place(found.where)} the model takes {size(found.total_bytes)}: {parts}"


def accuracy_text(found: AccuracyReport) -> str:
    """What the comparison on a board came to, in a sentence."""
    where = _place(found.board) if found.board is not None else "the board"
    outputs = [pair.cosine for pair in found.board_outputs.values()]
    # What is part of a fused layer has no tensor of its own anywhere.
    layers = sum(line.entire is not None for line in found.layers)
    compared = sum(line.board is not None or line.board_simulator is not None for line in found.layers)
    text = f"on {where}: {compared} of {counted(layers, 'layer')} compared"
    return f"{text}; output cosine {digits(min(outputs))} against the float model" if outputs else text


def _place(where: BoardRun) -> str:
    return f"{where.device}'s CPU" if where.place == "cpu" else where.device
