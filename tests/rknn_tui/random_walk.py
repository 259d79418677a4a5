"""Random keys of a person who tries everything, on the demo model with the real engine, from a seed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from typing import Any

from engine import demo
from rknn_tui.actions import ACTIONS
from tests.rknn_tui.real_app import Place, engines_of, wait_for
from tests.terminal import Terminal

WRAPPED = """
import json, os, signal, sys
from rknn_tui.app import Workshop

def tell(number, frame):
    bench = app.bench
    state, history = bench.editing.state, bench.editing.history
    found = {
        "wishes": dict(state.wishes), "ranges": {row: list(ends) for row, ends in state.ranges.items()},
        "biases": state.biases, "steps": history.undoable, "built": bench.built, "unsaved": bench.unsaved,
        "busy": bool(bench.running) or bench.editing.pending, "died": bench.died is not None, "path": bench.path,
        "screen": type(app.screen).__name__, "told": [notice.text for notice in app.tune.notices],
    }
    with open(sys.argv[3] + ".new", "w") as file:
        json.dump(found, file)
    os.replace(sys.argv[3] + ".new", sys.argv[3])

signal.signal(signal.SIGUSR1, tell)
app = Workshop(sys.argv[1], {"dataset": sys.argv[2], "config": {"mean_values": [[0]], "std_values": [[255]]}})
code = app.run(mouse=False)
sys.exit(code if code is not None else app.return_code or 0)
"""
"""The app, which writes what it holds to a file when it gets SIGUSR1."""

NAMED = {
    "space": " ",
    "enter": "\r",
    "tab": "\t",
    "escape": "\x1b",
    "shift+tab": "\x1b[Z",
    "f5": "\x1b[15~",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "left": "\x1b[D",
    "right": "\x1b[C",
    "f1": "\x1bOP",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "home": "\x1b[H",
    "end": "\x1b[F",
}
AWAY = {"quit", "open", "config", "commands", "keys"}
"""Actions that end the app or lead to another model, and lists in which any key may choose one of these."""
TYPED = (
    *(
        "op:conv\r",
        "cos<.9\r",
        "\x15\r",
        "0.99 cost 0.2\r",
        "-1 2\r",
        "0 5\r",
        "1 0\r",
        "inf nan\r",
        "9",
        "y",
        "y",
        "n",
    ),
    *(
        "op:conv float16\r",
        "stem|mix int16\r",
        "op:* default\r",
        "\r    stem: int16",
        "\x1b[1;5H\x1b[B\x1b[B",
        "{",
        "]",
    ),
    *("\x7f", "\x7f\x7f\x7f", "/nowhere/x\r", "é", "\x1b[1;5F\r  what: ["),
)
EDITS = ("f", "f", "8", "6", "d", " ", "u", "u", "\x12", "jf", "kd", "mjm6")
SIZES = ((80, 24), (80, 24), (120, 34), (200, 50), (60, 16), (80, 3))


def code_of(key: str) -> str:
    """What a terminal sends for a key of the keymap."""
    if key.startswith("ctrl+"):
        return chr(ord(key[-1]) - 96)
    return NAMED.get(key, key)


KEYS = sorted({code_of(key) for action in ACTIONS if action.id not in AWAY for key in action.keys} - {"q", "\x11"})
COMMANDS = [action.id for action in ACTIONS if action.id not in AWAY]


class Walker:
    """Presses keys from a seed; `log` has them all."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place, self.seed = place, seed
        self.chance = random.Random(seed)
        self.log: list[str] = []
        self._told = place.folder / "told.json"
        editor = place.folder / "editor"
        editor.write_text("#!/bin/sh\nprintf '# by hand\\n' >> \"$1\"\n")
        editor.chmod(0o755)
        self._environment = {"EDITOR": str(editor)}
        self.terminal = self.started()

    def started(self) -> Terminal:
        """The app on the model, which is built."""
        command = [sys.executable, "-c", WRAPPED, str(self.place.model), str(demo.DATASET), str(self._told)]
        self.terminal = self.place.started(command, **self._environment)
        self.terminal.sees("17 layers")
        self.terminal.press("b")
        self.terminal.waits(lambda: "not built" not in self.terminal.line(0), "the build")
        return self.terminal

    def walk(self, steps: int, *, harm: bool = False) -> None:
        """Press so many keys, and with `harm` resize the terminal and kill the engine now and then."""
        for _ in range(steps):
            if harm and self.chance.random() < 0.03:
                self.terminal.resize(*self.chance.choice(SIZES))
                self.log.append("resize")
            if harm and self.chance.random() < 0.01:
                for engine in engines_of(self.terminal):
                    os.kill(engine, signal.SIGKILL)
                self.log.append("kill")
            self.press(self._next())
            self.terminal.read_for(self.chance.choice((0.0, 0.0, 0.0, 0.01, 0.03)))
        self.terminal.read(0.3, 10.0)

    def press(self, keys: str) -> None:
        """Press keys that count."""
        self.log.append(keys)
        assert self.terminal.process.poll() is None, self.story()
        self.terminal.press(keys)

    def _next(self) -> str:
        kind = self.chance.random()
        if kind < 0.25:
            return self.chance.choice(EDITS)
        if kind < 0.40:
            return self.chance.choice(TYPED)
        if kind < 0.52:
            return "\x1b"
        if kind < 0.57:
            return f":{self.chance.choice(COMMANDS)}\r"
        if kind < 0.60:
            return "1"
        return self.chance.choice(KEYS)

    def settle(self) -> dict[str, Any]:
        """Go back to the layers, and wait until nothing runs; returns what the app holds."""
        self.terminal.resize(80, 24)
        for keys in ("\x1b", "\x1b", "\x1b", "\x1b", "1", "\x1b"):
            self.press(keys)
            self.terminal.read(0.12, 2.0)
        if self.ask()["died"]:
            self.press("r")
            self.terminal.read(0.3, 5.0)
        found = self.ask()
        while found["busy"]:
            self.terminal.read_for(0.1)
            found = self.ask()
        return found

    def ask(self) -> dict[str, Any]:
        """What the app holds: see WRAPPED."""
        self._told.unlink(missing_ok=True)
        assert self.terminal.process.poll() is None, self.story()
        os.kill(self.terminal.process.pid, signal.SIGUSR1)

        def told() -> bool:
            self.terminal.read_for(0.01)
            return self._told.exists()

        wait_for(told, self.story())
        found: dict[str, Any] = json.loads(self._told.read_text())
        return found

    def story(self) -> str:
        """What led here, for whom has to mend it."""
        log = self.place.folder / "state" / "rknn-tui" / "crash.log"
        crash = log.read_text() if log.exists() else ""
        return f"seed {self.seed}, the last keys {self.log[-12:]}:\n{self.terminal.text}\n{crash}"


def edits_of(found: dict[str, Any]) -> dict[str, Any]:
    """The edits in force."""
    return {name: found[name] for name in ("wishes", "ranges", "biases")}
