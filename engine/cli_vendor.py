"""What `inspect` tells of a file of the vendor's compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.files import vendor
from engine.files.vendor.model import VendorModel
from engine.files.vendor.summary import BORDERS
from engine.text_tables import counted, printable, shape_text, shortened, table

_FAMILIES = {"full": "the full runtime", "mini": "the runtime of RV1103 and RV1106"}
_MOST_SHOWN = 8


def inspected(path: str) -> tuple[dict[str, Any], str] | None:
    """The document and the text for a vendor's file; None for files of other kinds. Raises FileError for a vendor's
    file that cannot be read."""
    if not vendor.is_vendor_file(path):
        return None
    model = vendor.read(path)
    return {"model": model.summary(), "vendor": model, "problem": None}, vendor_text(model)


def vendor_text(model: VendorModel) -> str:
    """The whole file as text: what it is, its memory, inputs and outputs, nodes."""
    compiler = f", built by the vendor's compiler {printable(model.compiler)}" if model.compiler else ""
    target = printable(model.target) or "an unknown target"
    lines = [
        f"{printable(model.path)}: a vendor's .rknn, compiled for {target}: runs only on a board",
        f"{_container(model)}, {model.file_bytes:,} bytes{compiler}",
    ]
    facts = [
        ("NPU", model.engine),
        ("compiler", model.compiler_text),
        ("source", model.framework),
        ("custom string", model.custom_string),
        ("shapes", _shapes(model)),
        ("memory", _memory(model)),
        ("besides", _besides(model)),
    ]
    lines += ["", *(f"{name:18} {printable(text)}" for name, text in facts if text)]
    if model.inputs or model.outputs:
        lines += ["", _ports(model)]
    if model.normalization:
        lines += ["", _normalization(model)]
    layers = model.summary().layers
    if layers:
        on_cpu = sum(node.target == "cpu" and node.op not in BORDERS for node in model.nodes)
        shared = sum(node.cores > 1 for node in model.nodes)
        cores = f", {shared} shared by {max(node.cores for node in model.nodes)} cores" if shared else ""
        lines += ["", f"{counted(len(model.nodes), 'node')}, {on_cpu} on the CPU{cores}"]
        lines.append(
            table(
                ("#", "layer", "op", "precision", "shape", "reads"),
                [
                    (
                        str(layer.index),
                        shortened(layer.name),
                        layer.op,
                        layer.precision or layer.dtype,
                        shape_text(layer.shape),
                        _names(layer.inputs),
                    )
                    for layer in layers
                ],
                numbers=(0,),
            )
        )
    lines += [f"not read: {printable(line)}" for line in model.partial]
    return "\n".join(lines)


def _container(model: VendorModel) -> str:
    if model.container == "flatbuffer":
        return "a flatbuffer without the container"
    return f"layout {model.revision}, {_FAMILIES.get(model.family, 'of an unknown family')}"


def _shapes(model: VendorModel) -> str:
    """Whether shapes may vary, and the first sets of input shapes that the file is for."""
    if len(model.input_shapes) < 2:
        return model.shapes
    sets = [" ".join(map(shape_text, shapes[:_MOST_SHOWN])) for shapes in model.input_shapes[:_MOST_SHOWN]]
    more = "; …" if len(model.input_shapes) > _MOST_SHOWN else ""
    return f"{model.shapes}, {counted(len(model.input_shapes), 'set')}, the first shown here: {'; '.join(sets)}{more}"


def _memory(model: VendorModel) -> str:
    memory = model.memory
    if memory.weights is None or memory.internal is None:
        return ""
    source = "counted here from its tensors" if memory.counted else "by its compiler"
    return f"weights {_kilobytes(memory.weights)}, tensors between nodes {_kilobytes(memory.internal)}, {source}"


def _besides(model: VendorModel) -> str:
    """What the compiler's figures leave out."""
    memory = model.memory
    parts = [
        ("register commands", memory.register_commands),
        ("tasks", memory.tasks),
        ("data of operators", memory.operator_data),
    ]
    return ", ".join(f"{name} {_kilobytes(size)}" for name, size in parts if size)


def _kilobytes(size: int) -> str:
    return f"{size / 1024:,.1f} KB"


def _ports(model: VendorModel) -> str:
    return table(
        ("", "name", "shape", "type", "layout", "scale", "zero point", "on the NPU"),
        [
            (
                role,
                port.name,
                shape_text(port.shape),
                port.dtype or "-",
                port.layout or "-",
                _numbers(port.scale),
                _numbers(port.zero_point),
                f"{port.native_dtype} {shape_text(port.native[:_MOST_SHOWN])}" if port.native else "-",
            )
            for role, ports in (("input", model.inputs), ("output", model.outputs))
            for port in ports
        ],
    )


def _normalization(model: VendorModel) -> str:
    rows = []
    for port, one in zip(model.inputs, model.normalization, strict=True):
        # The compiler fills up to four channels.
        channels = port.shape[1] if len(port.shape) == 4 and 0 < port.shape[1] < 4 else None
        rows.append((port.name, *(_numbers(values[:channels]) for values in (one.mean, one.std, one.order))))
    return table(("input", "mean", "std", "channel order"), rows)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(map(shortened, names[:_MOST_SHOWN]))
    return (shown + ", …" if len(names) > _MOST_SHOWN else shown) or "-"


def _numbers(values: Sequence[float]) -> str:
    """A few numbers; of more, the first ones."""
    shown = ", ".join(f"{value:.6g}" for value in values[:_MOST_SHOWN])
    return (shown + ", …" if len(values) > _MOST_SHOWN else shown) or "-"
