"""Times the app on a terminal beside an empty Textual app on the same one: `python -m tests.benchmarks.app`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.opened_models import (
    DOWN,
    ESCAPE,
    LOADED,
    PAGE_DOWN,
    PAGE_UP,
    REST,
    UP,
    analyse,
    go_home,
    start_det,
    start_graph,
)
from tests.terminal import Terminal
from tests.zoo import FOLDER

EMPTY = "an empty app"
SUBJECTS: dict[str, Callable[..., Terminal]] = {"5,000 layers": start_graph, "det": start_det}

FIRST, GRAPH = "start to the first paint", "start to the visible graph"
ECHO = "a key that changes one cell"
MOVE, PAGE, TOGGLE = "cursor move", "page", "precision of a layer, first paint"
MEASURED = "precision of a layer, measured cosine"
FILTER, FOLDS, ORDER = "key of a filter", "all blocks folded or unfolded", "other order of the rows"

STARTS = 3
SETTLED = 0.15
"""Seconds without a byte after which a key's paints are through: what follows the cursor comes later."""
FOLLOWED = 0.5
"""Seconds without a byte after which that has come, too."""

# Milliseconds on two cores: the median, and the 95th percentile where one is aimed at. They are for 80x24.
TARGETS: dict[str, tuple[float, float | None]] = {
    FIRST: (500, None),
    GRAPH: (1500, None),
    MOVE: (10, 25),
    PAGE: (10, 25),
    TOGGLE: (10, 25),
    MEASURED: (200, None),
    FILTER: (25, None),
    FOLDS: (60, None),
    ORDER: (60, None),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds that the same thing took each time, and the bytes that it sent."""

    seconds: list[float]
    bytes: list[int]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def high(self) -> float:
        """The 95th percentile."""
        return sorted(self.seconds)[max(-(-95 * len(self.seconds) // 100) - 1, 0)]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was timed on one subject, and the bytes of memory that the app's process held in the end."""

    subject: str
    steps: dict[str, Step]
    resident: int | None

    def targets(self) -> dict[str, bool]:
        """What is aimed at on two cores, and whether it was reached."""
        found = {}
        for name, (median, high) in TARGETS.items():
            if name in self.steps and self.subject != EMPTY:
                found[f"{name} <= {median:g} ms"] = self.steps[name].median <= median / 1000
                if high is not None:
                    found[f"{name} <= {high:g} ms (p95)"] = self.steps[name].high <= high / 1000
        return found


class Watch:
    """Presses keys and tells how long the answers take."""

    def __init__(self, terminal: Terminal, steps: dict[str, Step]) -> None:
        self.terminal, self.steps = terminal, steps

    def time(self, name: str, keys: str, until: Callable[[], bool] | None = None) -> None:
        """Note the time from the key to the last byte of the paints that follow at once, or to when `until` holds."""
        terminal = self.terminal
        sent, before = 0, time.perf_counter()
        terminal.press(keys)
        last = before
        while select.select([terminal.master], [], [], SETTLED if sent and until is None else 5.0)[0]:
            last = time.perf_counter()
            sent += len(terminal.take())
            if until is not None and until():
                break
        else:
            assert sent and until is None, f"{keys!r} was not answered:\n{terminal.text}"
        self._note(name, last - before, sent)

    def start(self, name: str, since: float, until: Callable[[], bool]) -> None:
        """Note the time since a start until something is to be seen."""
        while not until():
            self.terminal.read_for(0.002)
        self._note(name, time.perf_counter() - since, self.terminal.bytes)

    def _note(self, name: str, seconds: float, sent: int) -> None:
        step = self.steps.setdefault(name, Step([], []))
        step.seconds.append(seconds)
        step.bytes.append(sent)


def measure_empty(presses: int) -> Measured:
    """An app of one line that shows how many keys were pressed."""
    command = [sys.executable, "-m", "tests.benchmarks.app", "--empty"]
    with _started(lambda **environment: Terminal(command, framed=True, **environment)) as watch:
        for _ in range(presses):
            watch.time(ECHO, "j")
        return Measured(EMPTY, watch.steps, watch.terminal.resident)


def measure(subject: str, presses: int = 40) -> Measured:
    """All steps on a model, each key pressed `presses` times."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as folder:
        start = SUBJECTS[subject]
        with _started(lambda **environment: start(Path(folder), **environment), LOADED) as watch:
            analyse(watch.terminal)
            _press(watch, subject, presses)
            return Measured(subject, watch.steps, watch.terminal.resident)


@contextlib.contextmanager
def _started(start: Callable[..., Terminal], shows: str = "") -> Iterator[Watch]:
    """Start a program STARTS times, note how long that takes, and go on with the last."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as compiled:
        steps: dict[str, Step] = {}
        for turn in range(STARTS + 1):
            since = time.perf_counter()
            # As where it is installed, and whatever is set here: what was imported once is compiled.
            terminal = start(PYTHONDONTWRITEBYTECODE=None, PYTHONPYCACHEPREFIX=compiled)
            try:
                watch = Watch(terminal, steps if turn else {})
                watch.start(FIRST, since, lambda terminal=terminal: bool(terminal.text.strip()))
                if shows:
                    watch.start(GRAPH, since, lambda terminal=terminal: shows in terminal.text)
                terminal.read(REST)
                if turn == STARTS:
                    yield watch
            finally:
                terminal.close()


def _press(watch: Watch, subject: str, presses: int) -> None:
    terminal = watch.terminal
    go_home(terminal)
    for turn in range(presses):
        watch.time(MOVE, DOWN if turn % 20 < 10 else UP)
        terminal.read(0.02)
    go_home(terminal)
    for turn in range(presses):
        watch.time(PAGE, PAGE_DOWN if turn % 8 < 4 else PAGE_UP)
        terminal.read(FOLLOWED)
    for turn in range(presses):
        if turn % 2 == 0:
            terminal.press(DOWN)
            terminal.read(REST)
        # Until the frame with the row is through; what the engine then measures comes in another.
        watch.time(TOGGLE, "u" if turn % 2 else "f", lambda: True)
        terminal.read(REST)
    for turn in range(max(presses // 2, 2) if subject == "det" else 0):
        if turn % 2 == 0:
            terminal.press(DOWN)
            terminal.read(REST)
            watch.time(MEASURED, "f", lambda: "*" in terminal.line(0) and "~" not in terminal.line(0))
        else:
            watch.time(MEASURED, "u", lambda: "*" not in terminal.line(0) and "~" not in terminal.line(0))
        terminal.read(REST)
    go_home(terminal)
    terminal.press("/")
    terminal.read(REST)
    for turn in range(presses):
        watch.time(FILTER, "conv"[turn % 8] if turn % 8 < 4 else "\x7f")
        terminal.read(FOLLOWED)
    terminal.press(ESCAPE)
    go_home(terminal)
    for _ in range(max(presses // 4, 2)):
        for name, key in ((FOLDS, "Z"), (ORDER, "v")):
            watch.time(name, key)
            terminal.read(FOLLOWED)


def table(measured: Sequence[Measured]) -> str:
    """Times, bytes and memory as text, with ratios to the empty app of the same run."""
    bases = {name: step.median for one in measured if one.subject == EMPTY for name, step in one.steps.items()}
    lines = []
    for one in measured:
        lines += ["", f"{one.subject}, 80x24", f"{'':44}{'ms':>8}{'p95':>8}{'ratio':>7}{'bytes':>8}{'most':>8}"]
        for name, step in one.steps.items():
            base = bases.get(FIRST if name in (FIRST, GRAPH) else ECHO)
            ratio = f"{step.median / base:.1f}" if base else ""
            high = f"{step.high * 1000:.1f}" if len(step.seconds) > 1 else ""
            sizes = f"{statistics.median(step.bytes):8.0f}{max(step.bytes):8}"
            lines.append(f"{name:44}{step.median * 1000:8.1f}{high:>8}{ratio:>7}{sizes}")
        if one.resident is not None:
            lines.append(f"{'memory of the process':44}{one.resident / (1 << 20):8.1f} MB")
        lines += [f"target: {what:55}{'ok' if met else 'missed':>9}" for what, met in one.targets().items()]
    return "\n".join(lines) + "\n"


def run_empty() -> None:
    """The app that the others are compared with."""
    from textual.app import App
    from textual.events import Key
    from textual.geometry import Region
    from textual.strip import Segment, Strip
    from textual.widget import Widget

    class Counter(Widget):
        keys = 0

        def render_line(self, y: int) -> Strip:
            return Strip([Segment(f"keys: {self.keys}" if y == 0 else "")]).adjust_cell_length(self.size.width)

    class Empty(App[None]):
        def compose(self):  # type: ignore[no-untyped-def]
            yield Counter()

        def on_key(self, event: Key) -> None:
            counter = self.query_one(Counter)
            counter.keys += 1
            counter.refresh(Region(6, 0, 4, 1))

    Empty(ansi_color=True).run(mouse=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time the app on a terminal beside an empty Textual app.")
    parser.add_argument("--presses", type=int, default=40, help="of each key")
    parser.add_argument("--empty", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("subjects", nargs="*", metavar="MODEL", help=f"of {', '.join(SUBJECTS)}; default all")
    options = parser.parse_args(arguments)
    if options.empty:
        run_empty()
        return 0
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown or ("det" in options.subjects and not FOLDER.is_dir()):
        parser.error(f"unknown models: {sorted(unknown)}" if unknown else f"no folder of real models at {FOLDER}")
    chosen = options.subjects or [name for name in SUBJECTS if name != "det" or FOLDER.is_dir()]
    print(table([measure_empty(options.presses), *(measure(name, options.presses) for name in chosen)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
