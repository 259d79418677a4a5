"""The commands `perf` and `memory`: what a model is estimated to take on one chip or several."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.cli_console import Console, screen_width
from engine.cli_options import JobOptions, UsageError, job_options
from engine.cli_sessions import build_hybrid, check_result, load, warn_of_ignored
from engine.config import Config
from engine.cost.figures import FIGURES
from engine.cost.reports import Estimated, document, layers_csv, memory_text, perf_text
from engine.cost.side_by_side import largest_layers, memory_side_by_side, perf_side_by_side, slowest_layers
from engine.errors import ConfigError, EngineError, QuantizationError
from engine.estimates import ModelEstimate
from engine.files import hybrid_files
from engine.files.writing import replacing
from engine.quantization.table import from_cfg
from engine.session import Session
from engine.targets import TARGETS, find_target
from engine.text_tables import counted

ALL_TARGETS = "all"
_SHOWN = 10


def perf(arguments: argparse.Namespace, console: Console) -> int:
    """`perf MODEL`: estimated time, in all and by layer."""
    cases, _ = _estimates(arguments, console)
    shown = {"worst": _shown(arguments), "width": screen_width()}
    text = perf_side_by_side(cases, **shown) if len(cases) > 1 else perf_text(cases[0].estimate, **shown)
    found = document(cases)
    if arguments.worst is not None:
        found["worst"] = slowest_layers(cases, arguments.worst)
    return _finish(arguments, console, cases, found, text)


def memory(arguments: argparse.Namespace, console: Console) -> int:
    """`memory MODEL`: estimated memory, in all and in use by layer."""
    cases, model_bytes = _estimates(arguments, console)
    shown = {"worst": _shown(arguments), "width": screen_width()}
    if len(cases) > 1:
        text = memory_side_by_side(cases, **shown)
    else:
        text = memory_text(cases[0].estimate, model_bytes=model_bytes, **shown)
    found = document(cases, blocks=True)
    if arguments.worst is not None:
        found["worst"] = largest_layers(cases, arguments.worst)
    return _finish(arguments, console, cases, found, text)


def _shown(arguments: argparse.Namespace) -> int | None:
    return None if arguments.layers else arguments.worst or _SHOWN


def _finish(
    arguments: argparse.Namespace, console: Console, cases: list[Estimated], found: dict[str, Any], text: str
) -> int:
    if arguments.csv:
        with replacing(arguments.csv) as file:
            # What is no character, in a name, must not cost the whole file.
            file.write(layers_csv(cases).encode("utf-8", "backslashreplace"))
        text += f"\nwrote {arguments.csv}"
    console.result(found, text)
    return 0


def _estimates(arguments: argparse.Namespace, console: Console) -> tuple[list[Estimated], int | None]:
    """An estimate for each cfg on each target, and the size of the package where the model is one."""
    targets = _targets(arguments)
    options = job_options(arguments)
    cfgs: list[str | None] = [*dict.fromkeys(arguments.cfg or [])] or [None]
    hybrid = Path(arguments.model).suffix == ".model"
    _check(arguments, options, hybrid)
    session, model_bytes = Session(options.config), None
    if not hybrid and load(session, arguments.model, options, console).built:
        model_bytes = Path(arguments.model).stat().st_size
        warn_of_ignored(arguments.model, "a package, built already", without_own(options), console)
    cases: list[Estimated] = []
    left_out: dict[str, EngineError] = {}
    for cfg in cfgs:
        wishes: dict[str, str] | None = None
        if hybrid:
            session, _ = build_hybrid(arguments, without_own(options), cfg, console)
        elif cfg is not None:
            wishes = from_cfg(hybrid_files.read_cfg(cfg), where=cfg).wishes
        needed = _precisions(session, options, wishes)
        for target in targets or [session.summary().target]:
            problem = _obstacle(target, needed, arguments.cores)
            if problem is not None and arguments.everywhere:
                left_out[target] = problem
                continue
            # Of a wish that cannot be, the session names the tensor.
            if problem is not None and not (wishes and isinstance(problem, QuantizationError)):
                raise problem
            with _named(cfg):
                found = _estimate(session, target, options, wishes, arguments.cores)
            cases.append(Estimated(arguments.model, found, cfg))
    if not cases:
        reasons = "; ".join(f"{target} {problem.what}" for target, problem in left_out.items())
        raise UsageError("no target can run this", where="--target", hint=reasons)
    for target, problem in left_out.items():
        console.warn(f"{target} is left out: it {problem.what}")
    return cases, model_bytes


def _estimate(
    session: Session, target: str, options: JobOptions, wishes: Mapping[str, str] | None, cores: int
) -> ModelEstimate:
    built = bool(session.summary().built)
    if not built:
        # Which layers a build makes float16 depends on the target that it is for.
        session.config = dataclasses.replace(session.config, target_platform=target)
    # What is built has a batch of its own.
    batch = {} if built and options.batch == 1 else {"batch": options.batch}
    return session.estimate(target, float16=options.float16, wishes=wishes, cores=cores, **batch)


@contextlib.contextmanager
def _named(cfg: str | None) -> Iterator[None]:
    """Let errors of wishes name the cfg that has them."""
    try:
        yield
    except QuantizationError as error:
        error.where = f"{cfg}: {error.where}" if cfg else error.where
        raise


def _check(arguments: argparse.Namespace, options: JobOptions, hybrid: bool) -> None:
    """Raise UsageError or FileError for options that do not go together, before the model is read."""
    if arguments.csv:
        inputs = [arguments.model, *(arguments.cfg or []), arguments.data, options.weights]
        check_result(Path(arguments.csv), "--csv", inputs)
    if options.float16 and arguments.cfg:
        raise UsageError("is for a model that is not float16 as a whole", where="--cfg", hint="leave out --float16")
    if options.float16 and hybrid:
        raise UsageError("a .model is built as its cfg says", where="--float16", hint="leave it out")
    if arguments.data and not hybrid:
        raise UsageError("belongs to a .model", where="--data", hint=f"leave it out for {arguments.model}")


def _targets(arguments: argparse.Namespace) -> list[str]:
    """The chips that are asked for; `arguments.target` becomes the first of them, with which the model is loaded."""
    words = [word.lower() for word in arguments.targets or []]
    arguments.everywhere = ALL_TARGETS in words
    try:
        names = list(TARGETS) if arguments.everywhere else [find_target(word).name for word in words]
    except ConfigError as error:
        raise UsageError(error.what, where="--target", hint=error.hint) from error
    arguments.target = names[0] if names else None
    return list(dict.fromkeys(names))


def without_own(options: JobOptions) -> JobOptions:
    """The build options without those that count for a package and a .model too."""
    config = dataclasses.replace(options.config, target_platform=Config.target_platform)
    return dataclasses.replace(options, config=config, float16=False, batch=1)


def _precisions(session: Session, options: JobOptions, wishes: Mapping[str, str] | None) -> set[str]:
    """The precisions that a target needs to have. Of what is built, few layers may be in others: notes tell of them."""
    if options.float16:
        return {"float16"}
    return set(wishes.values()) if wishes else {session.summary().built}


def _obstacle(target: str, precisions: set[str], cores: int) -> EngineError | None:
    """Why a target cannot run layers in these precisions, or on so many cores."""
    most, has = int(FIGURES[target].cores.value), find_target(target).precisions
    if cores > most:
        return UsageError(f"has {counted(most, 'NPU core')}, not {cores}", where=f"--cores for {target}")
    somewhere = {precision for other in TARGETS.values() for precision in other.precisions}
    lacking = sorted((precisions & somewhere) - set(has))
    if lacking:
        return QuantizationError(
            f"cannot run layers in {lacking[0]}", where=target, hint=f"{target} has {', '.join(has)}"
        )
    return None
