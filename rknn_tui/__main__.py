"""The command `rknn-tui`: the app on a model, or one of the headless commands."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cli import guarded, help_text, version_text
from engine.cli import main as run_verb
from engine.cli_console import print_result
from engine.cli_options import JobOptions, UsageError, add_job_arguments, job_options
from engine.cli_verbs import VERBS, Parser
from engine.errors import FileError, nearest

PROGRAM = "rknn-tui"
DEFAULT_TARGET = "rk3566"
"""What `Config` takes where nothing is said."""


def main(argv: Sequence[str] | None = None) -> int:
    """`rknn-tui VERB ...`, `rknn-tui MODEL [options]` or plain `rknn-tui`. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["demo"] and _wants_app(words[1:]):
        return guarded(_open_demo, words)
    if words and words[0] in VERBS:
        return run_verb(words, program=PROGRAM)
    return guarded(lambda: _open(words), words)


def _wants_app(words: Sequence[str]) -> bool:
    """Whether the demo opens the app: on a terminal, when nothing asks for text."""
    return not words and _on_terminal()


def _on_terminal() -> bool:
    # A dumb terminal cannot place the cursor, and Textual would draw nothing there.
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _open_demo() -> int:
    from engine import demo
    from engine.config import Config
    from rknn_tui.settings import state_folder

    config = Config.from_mapping({"mean_values": [list(demo.MEAN)], "std_values": [list(demo.STD)]})
    options = JobOptions(config, dataset=str(demo.DATASET)).to_mapping()
    # A copy: what is kept beside a model has no place in the program's own folder.
    model = state_folder() / "demo" / demo.MODEL.name
    try:
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(demo.MODEL.read_bytes())
    except OSError:
        model, options["read_only"] = demo.MODEL, True
    return _run_app(str(model), options)


def _open(words: list[str]) -> int:
    if "--version" in words:
        print_result(version_text())
        return 0
    arguments = _parser().parse_words(words)
    if len(arguments.model) > 1:
        first = arguments.model[0]
        raise UsageError(f"unknown command {first!r}", hint=nearest(first, VERBS))
    model = arguments.model[0] if arguments.model else None
    options = job_options(arguments).to_mapping()
    if arguments.target is None and options["config"]["target_platform"] == DEFAULT_TARGET:
        # Nobody asked for it: the model's project may know another.
        del options["config"]["target_platform"]
    options["read_only"] = arguments.read_only
    if model is not None and not Path(model).is_file():
        if Path(model).is_dir():
            raise FileError("is a folder, not a file", where=model, hint="name a file in it")
        if "." not in model and "/" not in model:
            raise UsageError(f"{model!r} is neither a command nor a file", hint=nearest(model, VERBS))
        raise FileError("does not exist", where=model, hint="check the path")
    if not _on_terminal():
        raise UsageError(
            "the app needs a terminal that can place the cursor", hint=f"without one: {PROGRAM} {'|'.join(VERBS)} ..."
        )
    return _run_app(model, options)


def _run_app(path: str | None, options: dict[str, Any]) -> int:
    # What is imported stays: to look through it for garbage again and again takes a tenth of the start.
    gc.disable()
    from rknn_tui.app import run

    gc.freeze()
    gc.enable()
    return run(path, options)


def _parser() -> Parser:
    headless = help_text(PROGRAM).partition("commands:")[2]
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [MODEL] [options]\n       {PROGRAM} COMMAND [options]",
        description="A workbench for neural networks on Rockchip NPUs. With a MODEL or nothing it opens the app.",
        epilog=f"commands that need no terminal:{headless}\n"
        f"examples:\n"
        f"  {PROGRAM} model.onnx --dataset photos.txt --mean 128,128,128 --std 128,128,128\n"
        f"  {PROGRAM} demo\n"
        f"  {PROGRAM} build model.onnx --dataset photos.txt --target rk3588",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="*", metavar="MODEL", help="a model or package to open")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--read-only", action="store_true", help="write nothing beside the model")
    add_job_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
