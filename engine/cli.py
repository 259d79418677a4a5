"""Runs one headless command: its errors become messages and exit codes.

Exit codes: 0 done, 1 the job failed, 2 the command line is wrong, 130 cancelled (`tune` has then written the best that
it found), 143 and 129 cancelled by SIGTERM and SIGHUP. Importing this module and asking for help load neither numpy nor
ONNX.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from engine.cli_board_arguments import check_board_options
from engine.cli_console import Console, print_result
from engine.cli_errors import in_options
from engine.cli_options import UsageError
from engine.cli_verbs import VERBS, verb_parser
from engine.errors import Cancelled, EngineError, nearest
from engine.text_tables import printable

PROGRAM = "python -m engine"


class Terminated(KeyboardInterrupt):
    """The system asked the process to end, by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """Run one command; `argv` without the program's name, by default the process's own. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _signals_as_exceptions():
        return guarded(lambda: _run(words, program), words)


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Let what would end the process unwind it first, so that unfinished files are removed. nohup stays in force."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    # Windows lacks the second.
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def guarded(work: Callable[[], int], words: Sequence[str]) -> int:
    """The exit code of `work`; whatever it raises becomes one message, as JSON where `words` hold --json."""
    as_json = "--json" in words
    verbose = "-v" in words or "--verbose" in words
    try:
        try:
            code = work()
            sys.stdout.flush()
            return code
        except SystemExit as end:
            # argparse ends so after it printed help.
            sys.stdout.flush()
            return end.code if isinstance(end.code, int) else 0
        except (KeyboardInterrupt, Cancelled) as error:
            _report(Cancelled(), as_json)
            return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)
        except UsageError as error:
            _report(error, as_json)
            return 2
        except BrokenPipeError:
            raise
        except EngineError as error:
            _report(error, as_json)
            return 1
        except Exception as error:
            if verbose:
                import traceback

                traceback.print_exc()
            _report(_unexpected(error, verbose), as_json, kind=type(error).__name__)
            return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough. The interpreter flushes standard output once more at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def help_text(program: str) -> str:
    """What `--help` without a command prints."""
    width = max(len(verb) for verb in VERBS)
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return f"""\
usage: {program} COMMAND [options]

Convert, quantize, simulate and analyse neural networks for Rockchip NPUs.

commands:
{verbs}

Every command has --help, with examples; --json prints one JSON document; exit codes: 0 done, 1 failed, 2 wrong usage,
130 cancelled (143 by SIGTERM, 129 by SIGHUP).
"""


def version_text() -> str:
    """`rknn-tui 0.1.0`."""
    from importlib import metadata

    try:
        return f"rknn-tui {metadata.version('rknn-tui')}"
    except metadata.PackageNotFoundError:
        return "rknn-tui (not installed, run from its source)"


def _run(words: list[str], program: str) -> int:
    if not words:
        raise UsageError("no command", hint=f"{', '.join(VERBS)}; see {program} --help")
    if words[0] in ("-h", "--help"):
        print_result(help_text(program).rstrip())
        return 0
    if words[0] == "--version":
        print_result(version_text())
        return 0
    verb = words[0]
    if verb.startswith("-"):
        raise UsageError(f"options come after the command, {verb} came first", hint=f"see {program} --help")
    if verb not in VERBS:
        raise UsageError(f"unknown command {verb!r}", hint=nearest(verb, VERBS))
    arguments = verb_parser(verb, program).parse_words(words[1:])
    with Console(as_json=arguments.json, verbose=arguments.verbose, quiet=arguments.quiet) as console:
        from engine import (
            cli_boards,
            cli_compile,
            cli_cost,
            cli_demo,
            cli_devices,
            cli_files,
            cli_jobs,
            cli_operators,
            cli_replay,
            cli_tuning,
        )

        jobs: dict[str, Callable[[argparse.Namespace, Console], int]] = {
            "build": cli_jobs.build,
            "infer": cli_jobs.infer,
            "analyze": cli_jobs.analyze,
            "perf": cli_cost.perf,
            "memory": cli_cost.memory,
            "lint": cli_tuning.lint,
            "tune": cli_tuning.tune,
            "hybrid": cli_tuning.hybrid,
            "set": cli_replay.set_layers,
            "replay": cli_replay.replay,
            "inspect": cli_jobs.inspect,
            "ops": cli_operators.ops,
            "compile": cli_compile.compile_model,
            "compiler": cli_compile.compiler,
            "devices": cli_devices.devices,
            "encrypt": cli_files.encrypt,
            "decrypt": cli_files.decrypt,
            "demo": cli_demo.demo,
        }
        check_board_options(arguments)
        if getattr(arguments, "device", None) is not None:
            jobs.update(cli_boards.JOBS)
        # A journal names arguments as the engine does.
        with contextlib.nullcontext() if verb == "replay" else in_options(getattr(arguments, "model", "")):
            return jobs[verb](arguments, console)


def _report(error: EngineError, as_json: bool, *, kind: str = "") -> None:
    if as_json:
        content = {"kind": kind or type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
        print_result(json.dumps({"error": content}, indent=2))
        return
    if isinstance(error, Cancelled):
        text = "cancelled"
    else:
        text = f"error: {error.where}: {error.what}" if error.where else f"error: {error.what}"
    lines = [text, f"hint: {error.hint}"] if error.hint else [text]
    for line in lines:
        # Several faults stand on lines of their own, with an indent.
        print("\n  ".join(map(printable, line.split("\n  "))), file=sys.stderr)


def _unexpected(error: Exception, verbose: bool) -> EngineError:
    if isinstance(error, OSError) and error.filename is not None:
        return EngineError(error.strerror or str(error), where=str(error.filename))
    if isinstance(error, MemoryError):
        return EngineError("out of memory", hint="a smaller model, batch or input size needs less")
    hint = "" if verbose else "run it again with -v for the traceback"
    return EngineError(f"unexpected {type(error).__name__}: {error}", hint=hint)
