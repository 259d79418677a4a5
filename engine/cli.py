"""The headless commands `build`, `infer`, `analyze`, `inspect` and `demo`: their arguments, errors and exit codes.

Exit codes: 0 done, 1 the job failed, 2 the command line is wrong, 130 cancelled, 143 and 129 cancelled by SIGTERM and
SIGHUP. Importing this module and asking for help load neither numpy nor ONNX.
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

from engine.cli_console import Console, print_result, printable
from engine.cli_errors import in_options
from engine.cli_options import UsageError, add_job_arguments, expand_arguments, flags
from engine.errors import Cancelled, EngineError, nearest

PROGRAM = "python -m engine"

VERBS = {
    "build": "convert and quantize a model into a package",
    "infer": "run a model or package on the simulator",
    "analyze": "compare the quantized model with the float model, layer by layer",
    "inspect": "show a model's inputs, outputs and layers",
    "demo": "build, analyse and score the bundled model",
}

_USAGES = {
    "build": "MODEL (--dataset FILE | --float16) [-o OUT.rknn] [options]",
    "infer": "MODEL FILE [FILE ...] [--save OUT.npz] [options]",
    "analyze": "MODEL [--dataset FILE] [--sample FILE ...] [options]",
    "inspect": "MODEL [options]",
    "demo": "[--headless] [--worst N] [options]",
}

_EXAMPLES = {
    "build": """\
  {program} build mobilenet.onnx --dataset photos.txt --mean 128,128,128 --std 128,128,128 --target rk3588
  {program} build detector.onnx --float16 --input-size 1,3,480,480 -o detector-fp16.rknn
  {program} build model.onnx --config model.yaml --json""",
    "infer": """\
  {program} infer model.rknn photo.jpg
  {program} infer model.onnx --float16 --mean 128,128,128 --std 128,128,128 photo.jpg
  {program} infer two-inputs.rknn left.npy right.npy --data-format nchw --save outputs.npz""",
    "analyze": """\
  {program} analyze model.onnx --dataset photos.txt --worst 10
  {program} analyze model.rknn --sample photo.jpg --json > report.json""",
    "inspect": """\
  {program} inspect model.onnx
  {program} inspect dynamic.onnx --input-size 1,3,224,224
  {program} inspect model.rknn --json""",
    "demo": """\
  {program} demo --worst 5
  {program} demo --json""",
}


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every fault it finds."""
        raise UsageError(message, hint=f"see {self.prog} --help")

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse `words` whatever the order of options and files. Raises UsageError with the nearest option's name."""
        arguments, unknown = self.parse_known_intermixed_args(expand_arguments(words))
        if unknown:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            flag = unknown[0].partition("=")[0]
            if flag.startswith("-"):
                raise UsageError(f"unknown option {flag}", hint=nearest(flag, options))
            raise UsageError(f"unexpected argument {unknown[0]!r}", hint=f"see {self.prog} --help")
        return arguments


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


def verb_parser(verb: str, program: str) -> Parser:
    """The arguments of one command."""
    parser = Parser(
        prog=f"{program} {verb}",
        usage=f"{program} {verb} {_USAGES[verb]}",
        description=VERBS[verb][0].upper() + VERBS[verb][1:] + ".",
        epilog="examples:\n" + _EXAMPLES[verb].format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if verb != "demo":
        parser.add_argument(
            "model", metavar="MODEL", help="an .onnx model" if verb == "build" else "a model or package"
        )
    if verb == "build":
        parser.add_argument("-o", "--out", metavar="OUT.rknn", help="the package (default: MODEL's name, here)")
    elif verb == "infer":
        parser.add_argument("files", nargs="*", metavar="FILE", help="jpg, png, bmp or npy, one for each model input")
        parser.add_argument("--image", action="append", metavar="FILE", help="a further input file")
        parser.add_argument(
            "--data-format", choices=("nhwc", "nchw"), default="nhwc", help="layout of npy files (default nhwc)"
        )
        parser.add_argument(
            "--pass-through",
            action="append",
            type=flags,
            metavar="YES,NO",
            help="feed files without mean and std; bare for all of them, or --pass-through=yes,no for each",
        )
        parser.add_argument("--save", metavar="OUT.npz", help="write the outputs to a file")
    elif verb == "analyze":
        parser.add_argument(
            "--sample",
            action="extend",
            nargs="+",
            metavar="FILE",
            help="the sample, one file for each model input (default: the dataset's first)",
        )
        parser.add_argument(
            "--output-dir", default="snapshot", metavar="DIR", help="where all tensors are written (default snapshot)"
        )
    elif verb == "demo":
        parser.add_argument("--headless", action="store_true", help="do not open the app, also on a terminal")
    if verb in ("analyze", "demo"):
        parser.add_argument(
            "--worst", type=_count, metavar="N", help="show only the N layers with the lowest single cosine"
        )
    if verb != "demo":
        add_job_arguments(parser)
    screen = parser.add_argument_group("what is shown")
    screen.add_argument("--json", action="store_true", help="print one JSON document")
    screen.add_argument("-v", "--verbose", action="store_true", help="show stages, seconds and tracebacks")
    screen.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return parser


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
        from engine import cli_jobs

        jobs: dict[str, Callable[[argparse.Namespace, Console], int]] = {
            "build": cli_jobs.build,
            "infer": cli_jobs.infer,
            "analyze": cli_jobs.analyze,
            "inspect": cli_jobs.inspect,
            "demo": cli_jobs.demo,
        }
        with in_options(getattr(arguments, "model", "")):
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
        print(printable(line), file=sys.stderr)


def _unexpected(error: Exception, verbose: bool) -> EngineError:
    if isinstance(error, OSError) and error.filename is not None:
        return EngineError(error.strerror or str(error), where=str(error.filename))
    if isinstance(error, MemoryError):
        return EngineError("out of memory", hint="a smaller model, batch or input size needs less")
    hint = "" if verbose else "run it again with -v for the traceback"
    return EngineError(f"unexpected {type(error).__name__}: {error}", hint=hint)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)
