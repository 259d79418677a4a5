"""What the cfg editor sends through the terminal's line: bytes a key, silence at rest, and a screen that is right."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

from tests.terminal import Terminal

# A cfg of some 5,000 lines.
START = (
    "import sys; sys.path.insert(0, 'tests/rknn_tui'); import test_cfg_editor as test; "
    "test.EditorApp(test.cfg(312)).run(mouse=False)"
)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal([sys.executable, "-c", START], PYTHONPATH=os.curdir)
    opened.sees("conv_0")
    # Once a key was answered, all paints of the start are through.
    opened.press("@")
    opened.sees("@")
    opened.press("\x7f")
    opened.loses("@")
    opened.read(0.3)
    yield opened
    opened.close()


@pytest.mark.slow
def test_keys_cost_few_bytes_and_rest_costs_none(terminal: Terminal) -> None:
    def cost(keys: str, times: int) -> float:
        start = terminal.bytes
        for _ in range(times):
            before = terminal.bytes
            terminal.press(keys)
            terminal.waits(lambda before=before: terminal.bytes > before, "an answer")  # type: ignore[misc]
            terminal.read(0.05)
        return (terminal.bytes - start) / times

    assert cost("\x1b[B", 10) <= 64
    assert cost("\x1b[C", 10) <= 64
    assert cost("x", 10) <= 80
    assert cost("\x7f", 10) <= 80
    assert cost("\r", 3) <= 600
    assert cost("\x1b[6~", 3) <= 1_500
    start = terminal.bytes
    terminal.press("\x1b[B" * 10 + "y" * 10)
    terminal.sees("y" * 10)
    assert terminal.bytes - start <= 10_000, "twenty keys at once are not twenty paints"
    terminal.read(0.3)
    assert terminal.read_for(3.0) == b""


@pytest.mark.slow
def test_what_is_drawn_piece_by_piece_is_what_a_whole_paint_shows(terminal: Terminal) -> None:
    chance = random.Random(3)
    keys = ["\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[6~", "\x1b[5~", "\x1b[1;2B", "\x1b[1;2A", "\x1b[F", "\x1b[H"]
    keys += ["x", " ", "#", ":", "漢", "\r", "\x7f", "\x1b[3~", "\x17", "\x0b", "\x1b[200~a: int8\rb\x1b[201~"]
    for turn in range(8):
        for _ in range(20):
            terminal.press(chance.choice(keys))
            terminal.read(chance.choice([0.0, 0.03]))
        # Keys are taken in order: where this is to be seen, so is what all before it did.
        terminal.press(f"@{turn}@")
        terminal.sees(f"@{turn}@")
        terminal.read(0.1)
        before, written = _seen(terminal), terminal.bytes
        terminal.press("\x1b[15~")
        terminal.waits(lambda written=written: terminal.bytes > written + 1_000, "a whole paint")  # type: ignore[misc]
        terminal.read(0.1)
        assert _seen(terminal) == before


def _seen(terminal: Terminal) -> list[list[tuple[str, bool]]]:
    screen = terminal.screen
    return [[(screen.buffer[y][x].data, screen.buffer[y][x].reverse) for x in range(80)] for y in range(24)]
