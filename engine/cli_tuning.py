"""What the headless commands `lint`, `tune` and `hybrid` do; imported only when one runs."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from engine.cli_console import Console, screen_width
from engine.cli_options import JobOptions, UsageError, job_options
from engine.cli_sessions import (
    build_hybrid,
    check_folder,
    check_readable,
    check_result,
    dataset_of,
    load,
    ready,
    require_samples,
)
from engine.cli_text import build_text
from engine.cli_tuning_text import findings_text, hybrid_text, tune_text
from engine.errors import EngineError, ModelError
from engine.progress import Progress
from engine.session import Session
from engine.summaries import BuildSummary, TuneReport
from engine.tuning.search import Wish

_FEWEST_SAMPLES = 4


def lint(arguments: argparse.Namespace, console: Console) -> int:
    """`lint MODEL`: what costs accuracy, and what to do about it."""
    options = job_options(arguments)
    check_readable(arguments.sample or [])
    session = Session(options.config)
    model = load(session, arguments.model, options, console)
    if not model.built:
        require_samples(options, arguments.model, "look at")
    findings = session.lint(options.dataset, arguments.sample, progress=console.progress())
    console.result({"model": model.path, "built": model.built, "findings": findings}, findings_text(findings))
    return 1 if arguments.strict and findings else 0


def hybrid(arguments: argparse.Namespace, console: Console) -> int:
    """`hybrid MODEL`: step 1 of hybrid quantization."""
    options = job_options(arguments)
    dataset = require_samples(options, arguments.model, "change")
    check_folder(Path(arguments.folder), "--folder")
    session = Session(options.config)
    if load(session, arguments.model, options, console).built:
        raise ModelError("is a package, built already", where=arguments.model, hint="name the source model")
    summary = session.hybrid_step1(
        dataset,
        rknn_batch_size=options.batch,
        proposal=arguments.proposal is not None,
        proposal_dataset_size=arguments.proposal or 1,
        folder=arguments.folder,
        progress=console.progress(),
    )
    text = f"{hybrid_text(summary, arguments.program)}\n\n{build_text(summary.build)}"
    console.result({"model": session.summary(), "hybrid": summary}, text)
    return 0


def tune(arguments: argparse.Namespace, console: Console) -> int:
    """`tune MODEL`: the layers that are worth a higher precision; what was found so far when Ctrl-C ends the search."""
    options = job_options(arguments)
    dataset = require_samples(options, arguments.model, "repair")
    _check_results(arguments, dataset)
    session, built = _start(arguments, options, console)
    model = session.summary()
    lines_before = session.cfg_wishes(arguments.cfg) if arguments.cfg else {}
    wish = Wish(0.999 if arguments.cosine is None else arguments.cosine, arguments.max_cost, arguments.max_layers)
    with _first_interrupt() as stopped:
        with _executor(arguments.jobs) as executor:
            progress = Progress(console.report, stopped.is_set)
            report = session.tune(
                dataset, wish=wish, precision=arguments.precision, executor=executor, progress=progress
            )
        taken = _taken(report, arguments.candidate)
        if taken >= 0:
            session.take(taken)
        output, cfg = (arguments.out, arguments.cfg) if report.complete or taken >= 0 else (None, None)
        if len(dataset_of(dataset, session, model)) < _FEWEST_SAMPLES:
            console.warn(f"{dataset} lists fewer than {_FEWEST_SAMPLES} samples: judged on those that the search saw")
        lines = [tune_text(report, taken, screen_width())]
        if output:
            lines.append(f"wrote {session.export(output)}")
        if cfg:
            gone = [name for name in lines_before if name not in session.table.wishes]
            if gone:
                console.warn(f"{cfg}: lines that the result does not have are gone: {', '.join(gone)}")
            lines.append(f"wrote {session.export_cfg(cfg)}")
            if taken >= 0 and not output and session.config.bias_correction is not False:
                lines.append("a cfg holds no biases: -o OUT.rknn keeps those that were corrected for these figures")
        document = {
            "model": model,
            "build": built,
            "report": report,
            "taken": taken + 1 if taken >= 0 else None,
            "output": output,
            "cfg": cfg,
            "cancelled": not report.complete,
        }
        console.result(document, "\n".join(lines))
    return 0 if report.complete else 128 + signal.SIGINT


def _start(arguments: argparse.Namespace, options: JobOptions, console: Console) -> tuple[Session, BuildSummary | None]:
    """What is to be repaired: a package as it is, a .model as its cfg says, another model built."""
    if Path(arguments.model).suffix == ".model":
        cfg = arguments.cfg if arguments.cfg and Path(arguments.cfg).exists() else None
        return build_hybrid(arguments, options, cfg, console)
    session, _, built = ready(arguments, options, console)
    return session, built


def _check_results(arguments: argparse.Namespace, dataset: str) -> None:
    if arguments.candidate is not None and not (arguments.out or arguments.cfg):
        raise UsageError("there is nothing to write it to", where="--candidate", hint="-o OUT.rknn or --cfg FILE")
    if arguments.data and Path(arguments.model).suffix != ".model":
        raise UsageError("belongs to a .model", where="--data", hint="leave it out")
    inputs = [arguments.model, arguments.data, dataset]
    if arguments.out:
        check_result(Path(arguments.out), "--out", [*inputs, arguments.cfg])
    if arguments.cfg:
        check_result(Path(arguments.cfg), "--cfg", inputs)
        if arguments.out and Path(arguments.cfg).resolve() == Path(arguments.out).resolve():
            raise UsageError("would replace the package", where="--cfg", hint="name another file")


def _taken(report: TuneReport, wanted: int | None) -> int:
    """The index of the candidate to take, -1 for none."""
    if wanted is None:
        return report.chosen
    if not report.complete:
        return -1  # numbers are those of a search that ended by itself
    if wanted > len(report.candidates):
        raise EngineError(
            f"there is no candidate {wanted}", where="--candidate", hint=f"the search found {len(report.candidates)}"
        )
    return wanted - 1


@contextlib.contextmanager
def _first_interrupt() -> Iterator[threading.Event]:
    """Let the first Ctrl-C only ask to stop, so that what was found is kept; the second one ends the command."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with _interrupts(signal.default_int_handler, ask):
        yield asked


@contextlib.contextmanager
def _executor(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """`jobs` processes; none for one job, which is done here."""
    if jobs == 1:
        yield None
        return
    try:
        # ONNX Runtime's threads do not survive a fork.
        with _Processes(jobs, multiprocessing.get_context("spawn")) as executor:
            yield executor
    except BrokenExecutor as error:
        raise EngineError("a process of the search ended", where="--jobs", hint="fewer need less memory") from error


class _Processes(ProcessPoolExecutor):
    """Processes that take no notice of Ctrl-C, which a terminal sends to all of them: jobs are called off here."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """As the base class does, which may start a process here; that begins with what is ignored."""
        with _interrupts(signal.getsignal(signal.SIGINT), signal.SIG_IGN):
            return super().submit(function, *arguments, **named)


@contextlib.contextmanager
def _interrupts(usual: Any, handler: Any) -> Iterator[None]:
    """Handle Ctrl-C in another way, where it is handled in the usual one."""
    change = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual
    if change:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if change:
            signal.signal(signal.SIGINT, usual)
