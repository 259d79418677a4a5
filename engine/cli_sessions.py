"""What the headless commands begin with: a session from a command line, and early looks at the files it names."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from engine.cli_console import Console
from engine.cli_errors import in_options
from engine.cli_keys import key_of_file
from engine.cli_options import JobOptions, UsageError
from engine.errors import FileError
from engine.files import encryption
from engine.quantization.dataset import Dataset
from engine.quantization.preprocessing import input_specs
from engine.session import Session
from engine.summaries import BuildSummary, ModelSummary

# Bytes, in every common file system.
_LONGEST_NAME = 255


def require_precision(options: JobOptions, model: str, quantized: int) -> None:
    """Raise UsageError where nothing says how the model is to be built, not even itself by `quantized` tensors."""
    if options.dataset is None and not options.float16 and not quantized:
        more = ", or --cfg FILE for a .model" if Path(model).suffix == ".model" else ""
        raise UsageError(
            "a model is quantized with samples",
            where=model,
            hint=f"--dataset FILE lists them (int8); or --float16{more}",
        )


def require_samples(options: JobOptions, model: str, what: str) -> str:
    """The dataset, for a command that works on what it quantizes with it. Raises UsageError."""
    if options.float16:
        raise UsageError(f"a float16 model has no rounding to {what}", where=model, hint="leave out --float16")
    if options.dataset is None:
        raise UsageError("needs samples", where=model, hint="--dataset FILE lists them")
    return options.dataset


def load(session: Session, path: str, options: JobOptions, console: Console) -> ModelSummary:
    """Load the model or package that the command line names."""
    # Here already, since `inspect` prints what stands in the way of loading.
    with in_options(path):
        cuts = options.inputs, options.input_size_list, options.outputs
        key = key_of_file(path) if encryption.is_encrypted(path) else None
        return session.load(path, *cuts, weights=options.weights, key=key, progress=console.progress())


def build_model(session: Session, options: JobOptions, console: Console) -> BuildSummary:
    """Build what was loaded."""
    return session.build(
        do_quantization=not options.float16,
        dataset=None if options.float16 else options.dataset,
        rknn_batch_size=options.batch,
        progress=console.progress(),
    )


def ready(
    arguments: argparse.Namespace, options: JobOptions, console: Console
) -> tuple[Session, ModelSummary, BuildSummary | None]:
    """A session that can run: a package as it is, another model built. No BuildSummary for a package."""
    session = Session(options.config)
    model = load(session, arguments.model, options, console)
    if model.built:
        warn_of_ignored(arguments.model, "a package, built already", options, console)
        return session, model, None
    require_precision(options, arguments.model, model.quantized)
    built = build_model(session, options, console)
    return session, session.summary(), built


def build_hybrid(
    arguments: argparse.Namespace, options: JobOptions, cfg: str | None, console: Console
) -> tuple[Session, BuildSummary]:
    """A session built from the .model and the .data of hybrid quantization, and `cfg`; what is not given lies beside
    the .model."""
    warn_of_ignored(arguments.model, "built as its .data says", options, console)
    session = Session()
    model = Path(arguments.model)
    data = arguments.data or model.with_suffix(".data")
    built = session.hybrid_step2(
        model, data, cfg or model.with_suffix(".quantization.cfg"), progress=console.progress()
    )
    return session, built


def warn_of_ignored(model: str, what: str, options: JobOptions, console: Console) -> None:
    """Warn where build options are given for what is built; a dataset may serve for something else."""
    if dataclasses.replace(options, dataset=None) != JobOptions():
        console.warn(f"{model} is {what}: the build options are ignored")


def dataset_of(path: str, session: Session, model: ModelSummary) -> Dataset:
    """The samples that a file lists, for the loaded model."""
    return Dataset(path, input_specs(session.config, model.inputs))


def check_result(path: Path, option: str, inputs: Sequence[str | None] = ()) -> None:
    """Say before the work, not after it, that its result has no place, or would replace one of `inputs`."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise FileError("cannot be written: the name is too long", where=str(path), hint="choose a shorter one")
    if path.is_dir():
        raise FileError("is a folder, not a file", where=str(path), hint=f"{option} names a file in it")
    if path.parent.is_file():
        raise FileError(f"{path.parent} is a file, not a folder", where=str(path), hint="choose another folder")
    if not path.parent.is_dir():
        raise FileError("its folder does not exist", where=str(path), hint="make the folder first")
    if not os.access(path.parent if path.is_file() or not path.exists() else path, os.W_OK):
        raise FileError("cannot be written: permission denied", where=str(path), hint="choose another folder")
    for file in inputs:
        if file and path.is_file() and Path(file).is_file() and path.samefile(file):
            raise UsageError(f"would replace {file}", where=option, hint="name another file")


def check_folder(path: Path, option: str) -> None:
    """As `check_result`, for a folder that is made where it does not exist."""
    if path.exists() and not path.is_dir():
        raise FileError("is a file, not a folder", where=str(path), hint=f"{option} names a folder")
    if path.is_dir() and not os.access(path, os.W_OK):
        raise FileError("cannot be written: permission denied", where=str(path), hint=f"choose another {option}")


def check_readable(files: Sequence[str]) -> None:
    """Say before the work that a file to run it on is missing."""
    for file in files:
        if not Path(file).exists():
            raise FileError("does not exist", where=file, hint="check the path")
