"""What each headless command does; imported only when one runs, since it brings numpy and ONNX with it."""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx_ir as ir

from engine import ort
from engine.cli_console import Console, screen_width
from engine.cli_errors import in_options
from engine.cli_options import JobOptions, UsageError, job_options
from engine.cli_text import (
    accuracy_text,
    build_text,
    counted,
    model_text,
    outputs_text,
    shape_text,
    table,
    worst_layers,
)
from engine.config import Config
from engine.errors import ConfigError, EngineError, FileError, InputError, ModelError
from engine.files.writing import replacing
from engine.frontends import onnx_file
from engine.quantization.dataset import Dataset, read_sample
from engine.quantization.preprocessing import InputSpec, input_specs
from engine.session import Session
from engine.session_state import Array
from engine.summaries import BuildSummary, ModelSummary

_TOP = 5
# Bytes, in every common file system.
_LONGEST_NAME = 255


def build(arguments: argparse.Namespace, console: Console) -> int:
    """`build MODEL`: a package from a model."""
    options = job_options(arguments)
    _require_precision(options, arguments.model)
    output = Path(arguments.out) if arguments.out else Path.cwd() / f"{Path(arguments.model).stem}.rknn"
    _check_writable(output, "--out")
    if output.exists() and Path(arguments.model).exists() and output.samefile(arguments.model):
        raise UsageError("would replace the model itself", where="--out", hint="name another file")
    session = Session(options.config)
    model = _load(session, arguments.model, options, console)
    if model.built:
        raise ModelError("is a package, built already", where=arguments.model, hint="build from the source model")
    built = _build(session, options, console)
    path = session.export(output)
    text = f"{path}: {build_text(built)}"
    console.result(
        {"model": session.summary(), "build": built, "output": str(path), "bytes": path.stat().st_size}, text
    )
    return 0


def infer(arguments: argparse.Namespace, console: Console) -> int:
    """`infer MODEL FILE...`: outputs of the simulated model."""
    files = [*arguments.files, *(arguments.image or [])]
    if not files:
        raise UsageError("no input files", hint="give one jpg, png, bmp or npy file for each model input")
    if arguments.save:
        _check_writable(Path(arguments.save), "--save")
    _check_readable(files)
    session, model, built = _ready(arguments, job_options(arguments), console)
    raw = [flag for row in arguments.pass_through or [[False]] for flag in row]
    inputs, formats, pass_through = _inputs(session, model, files, arguments.data_format, raw)
    outputs = session.infer(inputs, data_format=formats, inputs_pass_through=pass_through)
    named = list(zip([tensor.name for tensor in model.outputs], outputs, strict=True))
    described = [_describe(name, array) for name, array in named]
    if arguments.save:
        _save(Path(arguments.save), named)
    text = outputs_text(described)
    if arguments.save:
        text += f"\nsaved to {arguments.save}"
    document = {"model": model.path, "built": model.built, "build": built, "outputs": described}
    console.result({**document, "saved": arguments.save}, text)
    return 0


def analyze(arguments: argparse.Namespace, console: Console) -> int:
    """`analyze MODEL`: the quantized model against the float model, layer by layer."""
    options = job_options(arguments)
    _check_folder(Path(arguments.output_dir), "--output-dir")
    _check_readable(arguments.sample or [])
    session, model, built = _ready(arguments, options, console)
    sample = arguments.sample or _first_sample(options.dataset, session, model)
    report = session.analyze(sample, output_dir=arguments.output_dir, progress=console.progress())
    text = accuracy_text(report, arguments.worst, screen_width())
    if report.directory:
        text += f"\ntensors and error_analysis.txt are in {report.directory}"
    document: dict[str, Any] = {"model": model.path, "build": built, "sample": sample, "report": report}
    if arguments.worst is not None:
        document["worst"] = [layer.name for layer in worst_layers(report, arguments.worst)]
    console.result(document, text)
    return 0


def inspect(arguments: argparse.Namespace, console: Console) -> int:
    """`inspect MODEL`: what a model or package is made of; as much as can be told where it cannot be loaded."""
    options = job_options(arguments)
    session = Session(options.config)
    try:
        model = _load(session, arguments.model, options, console)
    except (ModelError, ConfigError) as error:
        if options.inputs or options.input_size_list or options.outputs:
            raise
        document, text = _inspect_file(Path(arguments.model), error)
        console.result(document, text)
        return 0
    console.result({"model": model, "problem": None}, model_text(model))
    return 0


def demo(arguments: argparse.Namespace, console: Console) -> int:
    """`demo`: the bundled model, built, analysed and scored."""
    from engine import demo as bundled

    mean, std = [list(bundled.MEAN)], [list(bundled.STD)]
    session = Session(Config.from_mapping({"mean_values": mean, "std_values": std}))
    samples = bundled.test_samples()
    model = session.load(bundled.MODEL, progress=console.progress())
    (spec,) = input_specs(session.config, model.inputs)
    original = ort.make_session(ort.serialize(session.model), optimization="none")
    built = session.build(dataset=bundled.DATASET, progress=console.progress())

    def run_float(image: Array) -> Array:
        result: Array = ort.run(original, None, {spec.name: image})[0]
        return result

    def run_built(image: Array) -> Array:
        return session.infer([image], data_format=spec.layout or None, inputs_pass_through=[1])[0]

    top1 = {
        name: _top1(f"test {name}", run, spec, samples, console)
        for name, run in (("float", run_float), (built.precision, run_built))
    }
    report = session.analyze([samples[0][0]], output_dir=None, progress=console.progress())
    lines = [
        accuracy_text(report, arguments.worst, screen_width()),
        "",
        f"top-1 on {counted(len(samples), 'test image')}: "
        + ", ".join(f"{name} {correct:.1%}" for name, correct in top1.items()),
    ]
    document = {
        "model": session.summary(),
        "build": built,
        "report": report,
        "test_images": len(samples),
        "top1": top1,
    }
    console.result(document, "\n".join(lines))
    return 0


def _require_precision(options: JobOptions, model: str) -> None:
    if options.dataset is None and not options.float16:
        raise UsageError(
            "a model is quantized with samples", where=model, hint="--dataset FILE lists them (int8); or --float16"
        )


def _load(session: Session, path: str, options: JobOptions, console: Console) -> ModelSummary:
    # Here already, since `inspect` prints what stands in the way of loading.
    with in_options(path):
        return session.load(path, options.inputs, options.input_size_list, options.outputs, progress=console.progress())


def _build(session: Session, options: JobOptions, console: Console) -> BuildSummary:
    return session.build(
        do_quantization=not options.float16,
        dataset=None if options.float16 else options.dataset,
        rknn_batch_size=options.batch,
        progress=console.progress(),
    )


def _ready(
    arguments: argparse.Namespace, options: JobOptions, console: Console
) -> tuple[Session, ModelSummary, BuildSummary | None]:
    """A session that can run: a package as it is, another model built. No BuildSummary for a package."""
    session = Session(options.config)
    model = _load(session, arguments.model, options, console)
    if model.built:
        if dataclasses.replace(options, dataset=None) != JobOptions():
            console.warn(f"{arguments.model} is a package, built already: the build options are ignored")
        return session, model, None
    _require_precision(options, arguments.model)
    built = _build(session, options, console)
    return session, session.summary(), built


def _check_writable(path: Path, option: str) -> None:
    """Say before the work, not after it, that its result has no place."""
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


def _check_folder(path: Path, option: str) -> None:
    """As `_check_writable`, for a folder that is made where it does not exist."""
    if path.exists() and not path.is_dir():
        raise FileError("is a file, not a folder", where=str(path), hint=f"{option} names a folder")
    if path.is_dir() and not os.access(path, os.W_OK):
        raise FileError("cannot be written: permission denied", where=str(path), hint=f"choose another {option}")


def _check_readable(files: Sequence[str]) -> None:
    """Say before the work that a file to run it on is missing."""
    for file in files:
        if not Path(file).exists():
            raise FileError("does not exist", where=file, hint="check the path")


def _inputs(
    session: Session, model: ModelSummary, files: Sequence[str], data_format: str, raw: Sequence[bool] = (False,)
) -> tuple[list[Array], list[str], list[int]]:
    """Arrays for `Session.infer`: npy files as they are; images prepared as in calibration, so passed through.

    `raw`: for each file, or one for all, whether mean and std are left out.
    """
    specs = input_specs(session.config, model.inputs)
    if len(files) != len(specs):
        names = ", ".join(repr(spec.name) for spec in specs)
        raise InputError(
            f"got {counted(len(files), 'input file')} for {counted(len(specs), 'model input')}",
            hint=f"in order: {names}",
        )
    if len(raw) not in (1, len(files)):
        raise UsageError(
            f"{len(raw)} answers for {counted(len(files), 'input file')}",
            where="--pass-through",
            hint="give one for each file, or one for all",
        )
    arrays, formats, pass_through = [], [], []
    for index, (file, spec) in enumerate(zip(files, specs, strict=True)):
        is_npy = Path(file).suffix.lower() == ".npy"
        as_it_is = raw[index % len(raw)]
        prepared = dataclasses.replace(spec, mean=(), std=()) if as_it_is else spec
        arrays.append(_read_npy(file) if is_npy else read_sample([file], [prepared])[spec.name])
        formats.append(data_format if is_npy else spec.layout or "nhwc")
        pass_through.append(int(as_it_is or not is_npy))
    return arrays, formats, pass_through


def _read_npy(path: str) -> Array:
    try:
        # Mapping refuses a header that promises more than the file holds, before memory is taken for it.
        with_header: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(with_header)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from error
    except (ValueError, EOFError, TypeError, SyntaxError) as error:
        raise InputError("is not an npy file of numbers, or is truncated", where=path) from error


def _describe(name: str, array: Array) -> dict[str, Any]:
    numeric = array.size > 0
    top: list[dict[str, Any]] = []
    if array.ndim == 2 and array.shape[0] == 1 and array.shape[1] > 1:
        order = np.argsort(-array[0], kind="stable")[:_TOP]
        top = [{"index": int(index), "value": float(array[0, index])} for index in order]
    return {
        "name": name,
        "shape": [int(size) for size in array.shape],
        "dtype": str(array.dtype),
        "min": float(array.min()) if numeric else None,
        "max": float(array.max()) if numeric else None,
        "mean": float(array.mean()) if numeric else None,
        "top": top,
    }


def _save(path: Path, outputs: Sequence[tuple[str, Array]]) -> None:
    """An npz file of `outputs` by name; a name that would leave the folder it is unpacked to becomes `output_N`."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for index, (name, array) in enumerate(outputs):
            parts = PurePosixPath(name.replace("\\", "/"))
            safe = name.isprintable() and not parts.is_absolute() and ".." not in parts.parts and ":" not in name
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            # Zip wants a date; a fixed one keeps equal outputs equal.
            member = zipfile.ZipInfo(f"{name if safe else f'output_{index}'}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(member, content.getvalue())


def _first_sample(dataset: str | None, session: Session, model: ModelSummary) -> list[str]:
    if dataset is None:
        raise UsageError("no sample to analyse", hint="--sample gives one file for each model input")
    return [str(file) for file in Dataset(dataset, input_specs(session.config, model.inputs)).files(0)]


def _inspect_file(path: Path, problem: EngineError) -> tuple[dict[str, Any], str]:
    """What the file says of itself when the engine cannot load it; raises `problem` where that is nothing."""
    try:
        graph_model = onnx_file.read(path)
    except EngineError:
        raise problem from None
    graph = graph_model.graph
    tensors = [
        (
            role,
            value.name or "",
            None if value.shape is None else [_size_text(size) for size in value.shape],
            _dtype_text(value),
        )
        for role, values in (("input", graph.inputs), ("output", graph.outputs))
        for value in values
        if value.name not in graph.initializers
    ]
    operators = Counter(node.op_type for node in graph)
    constants = [value.const_value for value in graph.initializers.values()]
    constants += [ir.convenience.get_const_tensor(node.outputs[0]) for node in graph if node.op_type == "Constant"]
    parameters = sum(tensor.size for tensor in constants if tensor is not None)
    opset = graph_model.opset_imports.get("", 0)
    details = {"what": problem.what, "where": problem.where, "hint": problem.hint}
    document = {
        "model": None,
        "file": {
            "path": str(path),
            "opset": opset,
            "tensors": [dict(zip(("role", "name", "shape", "dtype"), tensor, strict=True)) for tensor in tensors],
            "operators": dict(operators.most_common()),
            "parameters": int(parameters),
        },
        "problem": {"kind": type(problem).__name__, **details},
    }
    lines = [
        f"{path}: onnx, opset {opset}, {counted(sum(operators.values()), 'node')}, {parameters:,} parameters",
        "",
        table(
            ("", "name", "shape", "type"),
            [
                (role, name, "unknown" if shape is None else shape_text(shape), dtype)
                for role, name, shape, dtype in tensors
            ],
        ),
        "",
        "nodes: " + ", ".join(f"{op} {count}" for op, count in operators.most_common()),
        f"not loaded: {problem}",
    ]
    return document, "\n".join(lines)


def _size_text(size: int | ir.SymbolicDim) -> int | str:
    """A dimension's size, else its name; some exporters write -1 for a size that is not known."""
    if isinstance(size, int):
        return size if size >= 0 else "?"
    return size.value or "?"


def _dtype_text(value: ir.Value) -> str:
    try:
        return "" if value.dtype is None else str(value.dtype.numpy())
    except TypeError:
        # Strings and the like have no element type of numpy.
        return "" if value.dtype is None else value.dtype.name.lower()


def _top1(
    stage: str,
    run: Callable[[Array], Array],
    spec: InputSpec,
    samples: Sequence[tuple[Path, int]],
    console: Console,
) -> float:
    """The share of `samples` whose label is the highest output of `run`, given the image prepared for `spec`."""
    progress = console.progress()
    correct = 0
    for done, (path, label) in enumerate(samples):
        progress.step(stage, done, len(samples))
        correct += int(run(read_sample([path], [spec])[spec.name]).argmax() == label)
    return correct / len(samples)
