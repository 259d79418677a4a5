"""The options of the commands `perf` and `memory`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from engine.cli_board_arguments import board_arguments
from engine.cli_console import print_result
from engine.cli_options import positive
from engine.cost.schema import estimate_schema


def perf_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `perf`."""
    _cost_arguments(parser)
    board_arguments(parser, timed=True)


def memory_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `memory`."""
    _cost_arguments(parser)
    board_arguments(parser)


def _cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cfg",
        action="append",
        metavar="FILE",
        help="with the custom_quantize_layers of this cfg; several are shown side by side",
    )
    parser.add_argument("--data", metavar="FILE", help="the .data that belongs to a .model (default: that beside it)")
    parser.add_argument(
        "--cores", type=positive, default=1, metavar="N", help="NPU cores that share the work (default 1; rk3588 has 3)"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--layers", action="store_true", help="show all layers (default: the 10 that take most)")
    shown.add_argument("--worst", type=positive, metavar="N", help="show only the N layers that take most")
    parser.add_argument("--csv", metavar="FILE", help="write all layers to a file")
    parser.add_argument("--schema", action=_Schema, help="print the JSON Schema of what --json prints, and end")


class _Schema(argparse.Action):
    """Prints, and ends the program as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print_result(json.dumps(estimate_schema(), indent=2))
        parser.exit()
