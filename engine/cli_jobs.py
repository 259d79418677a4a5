"""What each headless command does; imported only when one runs, since it brings numpy and ONNX with it."""

from __future__ import annotations

import argparse
import dataclasses
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.cli_console import Console, screen_width
from engine.cli_files import encrypted_facts
from engine.cli_options import UsageError, job_options
from engine.cli_packages import package_facts
from engine.cli_sessions import (
    build_hybrid,
    build_model,
    check_folder,
    check_readable,
    check_result,
    dataset_of,
    load,
    ready,
    require_precision,
)
from engine.cli_text import accuracy_text, build_text, model_text, outputs_text, worst_layers
from engine.cli_tuning_text import recipes_text, sources_text
from engine.cli_vendor import inspected
from engine.errors import ConfigError, EngineError, InputError, ModelError
from engine.files import encryption
from engine.files.keys import find_key
from engine.files.writing import replacing
from engine.frontends import onnx_file
from engine.frontends.recognition import kind_of
from engine.quantization.dataset import read_sample
from engine.quantization.preprocessing import InputSpec, input_specs
from engine.session import Session
from engine.session_state import Array
from engine.summaries import ModelSummary
from engine.text_tables import counted, shape_text, table

_TOP = 5


def build(arguments: argparse.Namespace, console: Console) -> int:
    """`build MODEL`: a package from a model, or from the files of hybrid quantization."""
    options = job_options(arguments)
    model = Path(arguments.model)
    output = Path(arguments.out) if arguments.out else Path.cwd() / f"{model.stem}.rknn"
    inputs = [arguments.model, arguments.cfg, arguments.data, options.dataset]
    check_result(output, "--out", inputs)
    _check_further(arguments, output, inputs)
    if arguments.cfg:
        session, built = build_hybrid(arguments, options, arguments.cfg, console)
    elif arguments.data:
        raise UsageError("is for building from a cfg", where="--data", hint="--cfg FILE names it")
    else:
        if model.suffix == ".model":
            require_precision(options, arguments.model, 0)
        session = Session(options.config)
        loaded = load(session, arguments.model, options, console)
        if loaded.built:
            raise ModelError("is a package, built already", where=arguments.model, hint="build from the source model")
        require_precision(options, arguments.model, loaded.quantized)
        built = build_model(session, options, console)
    path = session.export(output)
    lines = [f"{path}: {build_text(built)}"]
    if arguments.onnx:
        lines.append(f"{session.export_onnx(arguments.onnx)}: the float model as it was quantized")
    if arguments.qdq:
        lines.append(f"{session.export_qdq(arguments.qdq)}: the quantized model as Q/DQ ONNX")
    document = {"model": session.summary(), "build": built, "output": str(path), "bytes": path.stat().st_size}
    if built.candidates:
        lines += ["", recipes_text(built.candidates)]
    console.result({**document, "onnx": arguments.onnx, "qdq": arguments.qdq}, "\n".join(lines))
    return 0


def _check_further(arguments: argparse.Namespace, output: Path, inputs: Sequence[str | None]) -> None:
    """Refuse files to be written beside the package that could not be, before there is work to lose."""
    others = [output]
    for option, name in (("--onnx", arguments.onnx), ("--qdq", arguments.qdq)):
        if not name:
            continue
        check_result(Path(name), option, inputs)
        if Path(name).resolve() in [other.resolve() for other in others]:
            raise UsageError("would replace another result", where=option, hint="name another file")
        others.append(Path(name))
    if arguments.qdq and arguments.float16:
        raise UsageError("is for quantized models", where="--qdq", hint="--onnx writes the float model")


def infer(arguments: argparse.Namespace, console: Console) -> int:
    """`infer MODEL FILE...`: outputs of the simulated model."""
    files, raw = input_files(arguments)
    session, model, built = ready(arguments, job_options(arguments), console)
    inputs, formats, pass_through = _inputs(session, model, files, arguments.data_format, raw)
    outputs = session.infer(inputs, data_format=formats, inputs_pass_through=pass_through)
    named = list(zip([tensor.name for tensor in model.outputs], outputs, strict=True))
    tell_outputs(arguments, console, {"model": model.path, "built": model.built, "build": built}, named)
    return 0


def input_files(arguments: argparse.Namespace) -> tuple[list[str], list[bool]]:
    """The files that `infer` is given, and for each, or for all, whether mean and std are left out. Raises UsageError
    and FileError for what would only come to light after the work."""
    files = [*arguments.files, *(arguments.image or [])]
    if not files:
        raise UsageError("no input files", hint="give one jpg, png, bmp or npy file for each model input")
    if arguments.save:
        check_result(Path(arguments.save), "--save")
    check_readable(files)
    return files, [flag for row in arguments.pass_through or [[False]] for flag in row]


def tell_outputs(
    arguments: argparse.Namespace,
    console: Console,
    found: dict[str, Any],
    named: Sequence[tuple[str, Array]],
    where: str = "",
) -> None:
    """Print and save what `infer` found; `found` is what else is known, `where` a line on where the model ran."""
    described = [describe(name, array) for name, array in named]
    lines = [outputs_text(described), where]
    if arguments.save:
        save_outputs(Path(arguments.save), named)
        lines.append(f"saved to {arguments.save}")
    console.result({**found, "outputs": described, "saved": arguments.save}, "\n".join(filter(None, lines)))


def analyze(arguments: argparse.Namespace, console: Console) -> int:
    """`analyze MODEL`: the quantized model against the float model, layer by layer."""
    options = job_options(arguments)
    check_folder(Path(arguments.output_dir), "--output-dir")
    check_readable(arguments.sample or [])
    session, model, built = ready(arguments, options, console)
    sample = arguments.sample or first_sample(options.dataset, session, model)
    report = session.analyze(
        sample, output_dir=arguments.output_dir, sources=arguments.sources, progress=console.progress()
    )
    text = accuracy_text(report, arguments.worst, screen_width())
    if report.sources is not None:
        text += f"\n\n{sources_text(report.sources, arguments.worst)}\n"
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
    cut = bool(options.inputs or options.input_size_list or options.outputs)
    vendors = None if cut else inspected(arguments.model)
    if vendors is not None:
        console.result(*vendors)
        return 0
    if encryption.is_encrypted(arguments.model) and find_key() is None:
        console.result(*encrypted_facts(arguments.model))
        return 0
    session = Session(options.config)
    try:
        model = load(session, arguments.model, options, console)
    except (ModelError, ConfigError) as error:
        if cut:
            raise
        document, text = _inspect_file(Path(arguments.model), error)
        console.result(document, text)
        return 0
    document, text = {"model": model, "problem": None}, model_text(model)
    if model.framework == "package":
        document["package"], facts = package_facts(arguments.model)
        text = f"{text}\n\n{facts}"
    console.result(document, text)
    return 0


def check_inputs(specs: Sequence[InputSpec], files: Sequence[str], raw: Sequence[bool]) -> None:
    """Raise InputError unless there is one file a model input, UsageError unless `raw` has one entry, or one a file."""
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


def _inputs(
    session: Session, model: ModelSummary, files: Sequence[str], data_format: str, raw: Sequence[bool] = (False,)
) -> tuple[list[Array], list[str], list[int]]:
    """Arrays for `Session.infer`: npy files as they are; images prepared as in calibration, so passed through.

    `raw`: for each file, or one for all, whether mean and std are left out.
    """
    specs = input_specs(session.config, model.inputs)
    check_inputs(specs, files, raw)
    arrays, formats, pass_through = [], [], []
    for index, (file, spec) in enumerate(zip(files, specs, strict=True)):
        is_npy = Path(file).suffix.lower() == ".npy"
        as_it_is = raw[index % len(raw)]
        prepared = dataclasses.replace(spec, mean=(), std=()) if as_it_is else spec
        arrays.append(read_npy(file) if is_npy else read_sample([file], [prepared])[spec.name])
        formats.append(data_format if is_npy else spec.layout or "nhwc")
        pass_through.append(int(as_it_is or not is_npy))
    return arrays, formats, pass_through


def read_npy(path: str) -> Array:
    """The numbers in an npy file. Raises InputError."""
    try:
        # Mapping refuses a header that promises more than the file holds, before memory is taken for it.
        with_header: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(with_header)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from error
    except (ValueError, EOFError, TypeError, SyntaxError) as error:
        raise InputError("is not an npy file of numbers, or is truncated", where=path) from error


def describe(name: str, array: Array) -> dict[str, Any]:
    """An output in a few numbers."""
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


def save_outputs(path: Path, outputs: Sequence[tuple[str, Array]]) -> None:
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


def first_sample(dataset: str | None, session: Session, model: ModelSummary) -> list[str]:
    """The files of a dataset's first sample. Raises UsageError without a dataset."""
    if dataset is None:
        raise UsageError("no sample to analyse", hint="--sample gives one file for each model input")
    return [str(file) for file in dataset_of(dataset, session, model).files(0)]


def _inspect_file(path: Path, problem: EngineError) -> tuple[dict[str, Any], str]:
    """What the file says of itself when the engine cannot load it; raises `problem` where that is nothing."""
    try:
        if kind_of(path) != "onnx":
            raise problem
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
