"""The command `demo`: the bundled model, built, analysed, repaired and scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from engine import demo as bundled
from engine import ort
from engine.cli_console import Console, screen_width
from engine.cli_text import accuracy_text
from engine.cli_tuning_text import findings_text, tune_text
from engine.config import Config
from engine.quantization.dataset import read_sample
from engine.quantization.preprocessing import input_specs
from engine.session import Session
from engine.session_state import Array
from engine.text_tables import counted


def demo(arguments: argparse.Namespace, console: Console) -> int:
    """`demo`: what int8 costs the bundled model, why, and how little brings it back."""
    progress = console.progress()
    session = Session(Config.from_mapping({"mean_values": [list(bundled.MEAN)], "std_values": [list(bundled.STD)]}))
    (spec,) = input_specs(session.config, session.load(bundled.MODEL, progress=progress).inputs)
    original = ort.make_session(ort.serialize(session.model), optimization="none")
    samples = [(read_sample([path], [spec])[spec.name], label) for path, label in bundled.test_samples()]
    top1: dict[str, float] = {}

    def score(name: str, run: Callable[[Array], Array]) -> None:
        correct = 0
        for done, (image, label) in enumerate(samples):
            progress.step(f"test {name}", done, len(samples))
            correct += int(run(image).argmax() == label)
        top1[name] = correct / len(samples)

    def run_float(image: Array) -> Array:
        result: Array = ort.run(original, None, {spec.name: image})[0]
        return result

    def run_built(image: Array) -> Array:
        return session.infer([image], data_format=spec.layout or None, inputs_pass_through=[1])[0]

    score("float", run_float)
    built = session.build(dataset=bundled.DATASET, progress=progress)
    score(built.precision, run_built)
    model = session.summary()
    report = session.analyze([bundled.test_samples()[0][0]], progress=progress)
    findings = session.lint(bundled.DATASET, progress=progress)
    tuned = session.tune(bundled.DATASET, progress=progress)
    session.take()
    score("tuned", run_built)
    lines = [
        accuracy_text(report, arguments.worst, screen_width()),
        "",
        "what lint says of it:",
        findings_text(findings),
        "",
        "what tune finds:",
        tune_text(tuned, tuned.chosen, screen_width()),
        "",
        f"top-1 on {counted(len(samples), 'test image')}: "
        + ", ".join(f"{name} {correct:.1%}" for name, correct in top1.items()),
    ]
    document: dict[str, Any] = {
        "model": model,
        "build": built,
        "report": report,
        "lint": findings,
        "tune": tuned,
        "test_images": len(samples),
        "top1": top1,
    }
    console.result(document, "\n".join(lines))
    return 0
