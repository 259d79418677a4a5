"""Checks that every node of a model is one that can be run, written as its operator's definition wants it."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from engine.errors import ModelError, UnsupportedOperator, nearest
from engine.frontends.onnx_opset import UPGRADERS
from engine.graph.provenance import label

# Domains whose operators ONNX Runtime carries besides the standard one; it has the last word on each.
_RUNTIME_DOMAINS = {"ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training", "com.ms.internal.nhwc"}
# Of no opset has ONNX Runtime one for these.
_WITHOUT_KERNEL = {"CausalConvWithState", "ImageDecoder", "LinearAttention", "SwiGLU"}
_LOOPS = {"Loop", "Scan", "SequenceMap"}
_CORRUPT = "the file is corrupt, or its exporter is wrong"
_SINGLE = onnx.defs.OpSchema.FormalParameterOption.Single


def check_supported(model: ir.Model, where: str) -> None:
    """Raise UnsupportedOperator listing every node of the main graph that nothing here can run."""
    unknown: list[str] = []
    hints: list[str] = []
    for node in model.graph:
        domain = _domain(node)
        if domain in _RUNTIME_DOMAINS:
            continue
        if not domain and node.op_type in _LOOPS:
            unknown.append(f"{node.op_type} ({label(node)})")
        elif not onnx.defs.has(node.op_type, domain) and not _upgraded(node, _version(model, node)):
            unknown.append(f"{domain + '.' if domain else ''}{node.op_type} ({label(node)})")
            if not domain:
                hints.append(nearest(node.op_type, _standard_operators()))
    if unknown:
        hints.append("cut them off with `inputs` and `outputs`, or export without them")
        raise UnsupportedOperator(
            f"unsupported operators: {_shown(unknown)}", where=where, hint="; ".join(dict.fromkeys(hints))
        )


def check_decided(model: ir.Model, where: str) -> None:
    """Raise UnsupportedOperator where an If is left, whose condition then depends on the inputs."""
    left = [label(node) for node in model.graph if node.op_type == "If" and not _domain(node)]
    if left:
        raise UnsupportedOperator(
            f"which branch of If runs depends on the input: {_shown(left)}",
            where=where,
            hint="export the model with the branch decided, or cut it off with `inputs` and `outputs`",
        )


def check_signatures(model: ir.Model, where: str) -> None:
    """Raise ModelError for a node, in subgraphs too, with other inputs, outputs or attributes than its operator has.

    What ONNX Runtime tolerates (an operator newer than the opset) is left to it.
    """
    for node in model.graph.all_nodes():
        try:
            schema = onnx.defs.get_schema(node.op_type, _version(model, node), _domain(node))
        except onnx.defs.SchemaError:
            continue
        place = f"{where}: {label(node)}" if node.outputs else where
        if not schema.min_input <= len(node.inputs) <= schema.max_input:
            raise ModelError(f"{node.op_type} has {len(node.inputs)} inputs", where=place, hint=_CORRUPT)
        if not node.outputs or not schema.min_output <= len(node.outputs) <= schema.max_output:
            raise ModelError(f"{node.op_type} has {len(node.outputs)} outputs", where=place, hint=_CORRUPT)
        if schema.min_input and node.inputs[0] is None and schema.inputs[0].option == _SINGLE:
            raise ModelError(f"{node.op_type} lacks its first input", where=place, hint=_CORRUPT)
        for name, formal_attribute in schema.attributes.items():
            attr = node.attributes.get(name)
            if attr is None and formal_attribute.required:
                raise ModelError(f"{node.op_type} lacks its attribute {name!r}", where=place, hint=_CORRUPT)
            if attr is not None and attr.type.value != formal_attribute.type.value:
                raise ModelError(f"the attribute {name!r} of {node.op_type} is of the wrong type", where=place)


def operators() -> dict[str, tuple[str, ...]]:
    """Every standard operator of tensors of numbers that can be read, each as itself."""
    left_out = {"If", *_LOOPS} | _WITHOUT_KERNEL
    words = ("Sequence", "Optional", "String", "Regex", "Tfidf")
    known = [name for name in _standard_operators() if not any(word.lower() in name.lower() for word in words)]
    return {name: (name,) for name in known if name not in left_out}


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _version(model: ir.Model, node: ir.Node) -> int:
    imports = model.graph.opset_imports
    return imports.get(node.domain, imports.get(_domain(node), imports.get("ai.onnx", 1)))


def _upgraded(node: ir.Node, version: int) -> bool:
    """Whether the operator is an old one of the standard domain that is rewritten into others."""
    return not _domain(node) and version < UPGRADERS.get(node.op_type, (0, None))[0]


def _standard_operators() -> list[str]:
    return sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})


def _shown(labels: list[str]) -> str:
    return ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
