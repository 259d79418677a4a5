"""The options of commands that run a model on a board; nothing here imports numpy or ONNX."""

from __future__ import annotations

import argparse

from engine.cli_options import UsageError

CORE_MASKS = ("auto", "0", "1", "2", "0_1", "0_1_2", "all")
RUNS, WARMUP = 10, 2


def board_arguments(parser: argparse.ArgumentParser, *, timed: bool = False, masked: bool = True) -> None:
    """Let a command take `--device` and what goes with it; `timed` also how often it runs."""
    board = parser.add_argument_group("on a board")
    board.add_argument(
        "--device",
        metavar="ID",
        help="run on this board: the id that `devices` lists, such as adb's serial number or ssh://...; bare --device "
        "is the only board there is. --target is compared with its chip. MODEL may be of the vendor's compiler",
    )
    if masked:
        board.add_argument(
            "--core-mask", choices=CORE_MASKS, help="NPU cores by the last part of NPU_CORE_... (default auto)"
        )
    if timed:
        board.add_argument("--runs", type=_whole, metavar="N", help=f"runs that are measured (default {RUNS})")
        board.add_argument("--warmup", type=_whole, metavar="N", help=f"runs before, not counted (default {WARMUP})")
        board.add_argument(
            "--pin", action="store_true", default=None, help="hold the NPU's clock at its highest meanwhile; restored"
        )


def devices_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `devices`."""
    parser.add_argument("--no-probe", action="store_true", help="list the boards only, and run nothing on them")
    parser.add_argument("--facts", action="store_true", help="show everything that each board tells of itself")


def check_board_options(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options of a board without a board."""
    if getattr(arguments, "device", None) is not None:
        return
    for option in ("core_mask", "runs", "warmup", "pin"):
        if getattr(arguments, option, None) is not None:
            raise UsageError(
                "is for a board", where=f"--{option.replace('_', '-')}", hint="--device ID names the board"
            )


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 10_000:
        raise argparse.ArgumentTypeError(f"expected a whole number up to 10000, got {text!r}")
    return int(text)
