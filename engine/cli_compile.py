"""What the headless commands `compile` and `compiler` do; imported only when one runs."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from engine.cli_console import Console
from engine.cli_options import JobOptions, UsageError, job_options
from engine.cli_sessions import build_hybrid, check_result, ready
from engine.cli_text import build_text
from engine.compiler import environment
from engine.compiler.errors import CompilerError
from engine.compiler.results import layers_text, ways_text
from engine.session import Session
from engine.summaries import BuildSummary
from engine.targets import find_target
from engine.text_tables import counted, printable

_LOWEST = 10


def compile_model(arguments: argparse.Namespace, console: Console) -> int:
    """`compile MODEL`: what the chip runs, by the vendor's compiler."""
    options = job_options(arguments)
    _check_files(arguments, options)
    folder = None if arguments.folder is None else Path(arguments.folder)
    # Said before the build, which takes a while.
    environment.find_python(folder)
    session, built = _session(arguments, options, console)
    target = session.summary().target
    if arguments.target is not None and find_target(arguments.target).name != target:
        raise UsageError(f"the model was built for {target}", where="--target", hint="build it anew for the other chip")
    output = _output(arguments, target)
    summary = session.compile(
        output,
        None if options.float16 else options.dataset,
        way=arguments.way,
        analysis=arguments.analysis,
        folder=folder,
        progress=console.progress(),
    )
    for note in summary.notes:
        console.warn(note)
    lines = [
        f"{output}: {counted(summary.bytes, 'byte')} for {target}, by toolkit {summary.toolkit}, way {summary.way}"
    ]
    if built is not None:
        lines.insert(0, build_text(built))
    lines += ["", ways_text(summary)]
    if summary.layers:
        lines += ["", layers_text(summary.layers, None if arguments.layers else _LOWEST)]
    if arguments.package:
        lines += ["", f"wrote {session.export(arguments.package)}, with the binary in it"]
    document = {"model": session.summary(), "build": built, "compiled": summary, "package": arguments.package}
    console.result(document, "\n".join(lines))
    return 0


def compiler(arguments: argparse.Namespace, console: Console) -> int:
    """`compiler install` and `compiler status`; exit code 1 where the environment cannot be used."""
    folder = None if arguments.folder is None else Path(arguments.folder)
    if arguments.what == "install":
        options = tuple(arguments.pip_option or ())
        found = environment.install(folder, _python(arguments.python), options=options, progress=console.progress())
    else:
        if arguments.python or arguments.pip_option:
            raise UsageError("belongs to `compiler install`", where="--python" if arguments.python else "--pip-option")
        found = environment.status(folder, console.progress())
    console.result({"compiler": found}, _status_text(found))
    return 1 if found.problem else 0


def _session(
    arguments: argparse.Namespace, options: JobOptions, console: Console
) -> tuple[Session, BuildSummary | None]:
    if Path(arguments.model).suffix == ".model":
        return build_hybrid(arguments, options, arguments.cfg, console)
    if arguments.cfg or arguments.data:
        raise UsageError("belongs to a .model", where="--cfg" if arguments.cfg else "--data", hint="leave it out")
    session, _, built = ready(arguments, options, console)
    return session, built


def _check_files(arguments: argparse.Namespace, options: JobOptions) -> None:
    inputs = [arguments.model, arguments.cfg, arguments.data, options.dataset]
    if arguments.out:
        check_result(Path(arguments.out), "--out", inputs)
    if arguments.package:
        # A package may take up what was compiled of it.
        check_result(Path(arguments.package), "--package", inputs[1:])
        if arguments.out and Path(arguments.package).resolve() == Path(arguments.out).resolve():
            raise UsageError("would replace the binary", where="--package", hint="name another file")


def _output(arguments: argparse.Namespace, target: str) -> Path:
    """Where the binary goes. Never over a file of the same name that nobody named."""
    if arguments.out:
        return Path(arguments.out)
    path = Path.cwd() / f"{Path(arguments.model).stem}-{target}.rknn"
    check_result(path, "--out", [arguments.model, arguments.package])
    return path


def _python(name: str | None) -> str | None:
    """The path of a program that may be named without one. Raises CompilerError."""
    if name is None or Path(name).exists():
        return name
    found = shutil.which(name)
    if found is None:
        raise CompilerError("there is no such program", where=name, hint="--python names a Python of 3.8 to 3.12")
    return found


def _status_text(found: environment.Status) -> str:
    rows = [("folder", found.folder), ("python", found.python)]
    rows += [(name, version or "missing") for name, version in found.versions.items() if name != "python"]
    if "python" in found.versions:
        rows[1] = ("python", f"{found.python} ({found.versions['python']})")
    lines = [f"{name:16} {printable(text)}" for name, text in rows if text]
    lines.append(f"{'problem':16} {found.problem}" if found.problem else "ready: rknn-tui compile MODEL --target CHIP")
    if found.problem and found.hint:
        lines.append(f"{'next':16} {found.hint}")
    return "\n".join(lines)
