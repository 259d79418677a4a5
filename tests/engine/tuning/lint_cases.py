"""Small quantized networks with what is known of their samples, to run lint on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from engine.analysis.judging import Judge
from engine.config import Config
from engine.graph.layers import layers
from engine.progress import Progress
from engine.quantization.edits import check_wish, with_range
from engine.quantization.histograms import collect_histograms
from engine.quantization.quantize import quantize
from engine.quantization.quantized import Quantized
from engine.quantization.statistics import Statistics, collect
from engine.quantization.table import Table
from engine.session import Session
from engine.summaries import Finding
from engine.tuning.lint import RULES, lint
from tests.small_networks import Array, random, typed

Sample = Mapping[str, Array]


@dataclasses.dataclass
class Case:
    """A quantized network with what is known of its samples."""

    quantized: Quantized
    statistics: Statistics
    samples: Sequence[Sample]
    config: Config

    def find(self, rule: str = "", **evidence: Any) -> list[Finding]:
        """What lint says, or one rule of it; every line that it proposes must be one that the model takes."""
        known = {"statistics": self.statistics, "samples": self.samples, **evidence}
        findings = lint(self.quantized, self.config.target, **known)
        for finding in findings:
            assert finding.rule in RULES and finding.message and finding.remedy
            for tensor, precision in finding.wishes.items():
                check_wish(self.quantized, tensor, precision, self.config.target)
        return [f for f in findings if f.rule == rule or not rule]

    def wished(self, **wishes: str) -> Case:
        """The same with lines of custom_quantize_layers."""
        table = Table(self.quantized.table.rows, wishes)
        return dataclasses.replace(self, quantized=self.quantized.changed(table=table))

    def ranged(self, tensor: str, low: float, high: float) -> Case:
        """The same with another range of a row."""
        rows = self.quantized.table.rows
        rows = {**rows, tensor: with_range(tensor, rows[tensor], low, high)}
        return dataclasses.replace(self, quantized=self.quantized.changed(table=Table(rows)))

    def noise(self, wishes: Mapping[str, str]) -> float:
        table = Table(self.quantized.table.rows, dict(wishes))
        return Judge(self.quantized, self.samples[:4]).run(self.quantized.changed(table=table)).noise


def case(folder: Path, proto: onnx.ModelProto, samples: Sequence[Sample], **settings: Any) -> Case:
    """`proto` quantized on samples in its own layout."""
    path = folder / "model.onnx"
    path.write_bytes(typed(proto).SerializeToString())
    config = Config.from_mapping({"target_platform": "rk3588", **settings})
    session = Session(config)
    session.load_onnx(path)
    return calibrated(session, samples)


def calibrated(session: Session, samples: Sequence[Sample]) -> Case:
    model, steps = session.model, layers(session.model)
    statistics = collect(model, samples, len(samples), Progress())
    statistics = collect_histograms(model, statistics, samples, len(samples), Progress())
    table = quantize(model, steps, statistics, session.config)
    return Case(Quantized(model, steps, table, session.config.quantized_method), statistics, samples, session.config)


def drawn(number: int = 12, **shapes: Sequence[int]) -> list[Sample]:
    """Normally distributed samples."""
    return [
        {name: random(*shape, seed=100 * i + j) for j, (name, shape) in enumerate(shapes.items())}
        for i in range(number)
    ]
