"""The command `devices`: the boards that there are, and what each of them is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.board_texts import load_text, megabytes, told
from engine.boards import READY, Board, BoardFacts
from engine.cli_console import Console
from engine.text_tables import printable, table

if TYPE_CHECKING:
    from engine.devices.discovery import Listing

_NOTHING = """\
no board is connected
Connect the board's USB port for data (OTG) to this computer and switch the board on; or run `adb connect ADDRESS` for
one on the network; or list boards that SSH reaches in devices.yaml (see the README)."""


def devices(arguments: argparse.Namespace, console: Console) -> int:
    """`devices`: all boards over adb and SSH, the machine itself where it is one, and what cannot be used, with why."""
    # What speaks with adb takes a fifth of a second to import, and other commands load this module too.
    from engine.devices.discovery import list_boards

    listing = list_boards(probe=not arguments.no_probe)
    text = listing_text(listing, facts=arguments.facts or arguments.verbose)
    console.result({"boards": listing.boards, "faults": listing.faults}, text)
    return 0


def listing_text(listing: Listing, *, facts: bool = False) -> str:
    """The boards as a table, what to know of each, and why a way to boards could not be asked."""
    lines: list[str] = []
    if listing.boards:
        lines.append(_table(listing.boards))
        lines += [f"{printable(one.id)}: {printable(text)}" for one in listing.boards for text in _remarks(one)]
    elif not listing.faults:
        lines.append(_NOTHING)
    if facts:
        for board in listing.boards:
            if board.facts is not None:
                lines += ["", *facts_lines(board.id, board.facts)]
    return "\n".join([*lines, *(f"not asked: {printable(fault)}" for fault in listing.faults)])


def _table(boards: Sequence[Board]) -> str:
    rows = []
    for one in boards:
        facts = one.facts or BoardFacts()
        rows.append(
            (
                one.id,
                one.transport,
                "ready" if one.state == READY else one.state,
                facts.chip or "-",
                facts.system or one.model or "-",
                facts.runtime or "-",
                facts.driver or "-",
                megabytes(facts.free_memory),
                "-" if facts.temperature is None else f"{facts.temperature:.0f}",
                " ".join(load_text(facts.npu_load).split()),
            )
        )
    titles = ("id", "by", "state", "chip", "system", "runtime", "driver", "free MB", "°C", "NPU load")
    return table(titles, rows, numbers=(7, 8))


def _remarks(board: Board) -> list[str]:
    problems = board.facts.problems if board.facts is not None else ()
    return [text for text in (board.note if board.state != READY else "", *problems) if text]


def facts_lines(device: str, facts: BoardFacts) -> list[str]:
    """All that a board told, a fact a line; what it did not tell is left out."""
    rows = [(name, " ".join(text.split())) for name, text in told(facts) if text]
    return [printable(device), *(f"  {name:<15}  {printable(text)}" for name, text in rows)]
