"""`ops`: which operators of each framework can be read, and where a chip runs them."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Iterable

from engine.cli_console import Console
from engine.cost.placement import CONDITIONS, place_all
from engine.errors import ConfigError, nearest
from engine.targets import TARGETS, find_target
from engine.text_tables import counted, table

FRONT_ENDS = {
    "ONNX": "onnx_operators",
    "TensorFlow Lite": "tflite",
    "TensorFlow": "tensorflow",
    "Caffe": "caffe",
    "Darknet": "darknet",
    "PyTorch": "pytorch",
}
"""The modules in `engine.frontends` that tell what they read."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator of a framework, the ONNX operators that it becomes, and where each target runs those."""

    framework: str
    operator: str
    becomes: tuple[str, ...]
    targets: dict[str, str]


def operators(framework: str, targets: Iterable[str] = TARGETS) -> list[Operator]:
    """All that is read of a framework, by name."""
    known: dict[str, tuple[str, ...]] = importlib.import_module(f"engine.frontends.{FRONT_ENDS[framework]}").operators()
    return [
        Operator(framework, name, becomes, {target: place_all(becomes, target) for target in targets})
        for name, becomes in sorted(known.items())
    ]


def ops(arguments: argparse.Namespace, console: Console) -> int:
    """`ops`: the table of operators by framework and target."""
    names = FRONT_ENDS if arguments.framework is None else [_framework(arguments.framework)]
    targets = tuple(TARGETS) if arguments.target is None else (find_target(arguments.target).name,)
    found = [operator for name in names for operator in operators(name, targets)]
    rows = [
        (one.framework, one.operator, " ".join(one.becomes) or "-", *(one.targets[target] for target in targets))
        for one in found
    ]
    counts = ", ".join(f"{name} {counted(sum(one.framework == name for one in found), 'operator')}" for name in names)
    notes = {name: note for name, note in CONDITIONS.items() if any(name in one.becomes for one in found)}
    lines = [
        table(("framework", "operator", "becomes", *targets), rows),
        "",
        counts,
        "npu, cpu: where a target runs it, as was seen or is documented; unknown: neither tells",
        *(f"{name}: {note}" for name, note in notes.items()),
    ]
    console.result({"operators": found, "conditions": notes}, "\n".join(lines))
    return 0


def _framework(text: str) -> str:
    """The framework whose name, or module, is written so, in any case. Raises ConfigError."""
    by_name = {"".join(name.lower().split()): name for name in FRONT_ENDS} | {"tflite": "TensorFlow Lite"}
    key = "".join(text.lower().split())
    if key not in by_name:
        raise ConfigError(f"unknown framework {text!r}", where="--framework", hint=nearest(key, by_name))
    return by_name[key]
