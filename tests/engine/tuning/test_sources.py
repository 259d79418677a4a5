"""The source map tells what each rounding alone does, and leaves out none that does anything."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.judging import Judge
from engine.errors import Cancelled
from engine.progress import Progress
from engine.quantization.edits import edited
from engine.quantization.quantized import Quantized
from engine.simulator.lowering import Source
from engine.summaries import SourceMap
from engine.targets import TARGETS
from engine.tuning.sources import error_sources, measure_sources, source_map
from tests.engine.tuning.changing_networks import Subject, branches, digits, edits_of, rebuilt, tokens
from tests.simulated import wished
from tests.small_networks import Array, built, network, random


@pytest.fixture(scope="module", params=[branches, tokens, digits], ids=lambda make: make.__name__)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    made: Subject = request.param(tmp_path_factory.mktemp("subject"))
    return made


def noise_of(subject: Subject, quantized: Quantized, only: frozenset[Source]) -> tuple[float, ...]:
    """By part, from the whole model in one session."""
    runs = [rebuilt(quantized, sample, only) for sample in subject.samples]
    quality = Judge(quantized, subject.samples).quality(lambda sample, tensor: runs[sample][tensor])
    return tuple(part.noise for part in quality.parts)


def measured(quantized: Quantized, subject: Subject) -> list[tuple[float, ...]]:
    return measure_sources(quantized, subject.samples, Progress())


@settings(max_examples=4)
@given(data=st.data())
def test_each_source_is_measured_as_if_it_alone_were_rounded(subject: Subject, data: st.DataObject) -> None:
    quantized = edited(subject.quantized, data.draw(edits_of(subject.quantized)), TARGETS["rk3588"])
    sources = error_sources(quantized)
    noises = measured(quantized, subject)
    for index in data.draw(st.lists(st.integers(0, len(sources) - 1), min_size=4, max_size=4)):
        alone = noise_of(subject, quantized, frozenset({sources[index].source}))
        assert noises[index] == pytest.approx(alone, rel=1e-6, abs=1e-12), sources[index]


def every_source(quantized: Quantized) -> frozenset[Source]:
    tensors = {v.name or "" for v in quantized.model.graph.inputs} | quantized.makers.keys()
    weights = {Source("weights", layer.name) for layer in quantized.layers}
    return frozenset({Source("tensor", name) for name in tensors} | weights)


@settings(max_examples=4)
@given(data=st.data())
def test_what_is_left_out_changes_next_to_nothing(subject: Subject, data: st.DataObject) -> None:
    quantized = edited(subject.quantized, data.draw(edits_of(subject.quantized)), TARGETS["rk3588"])
    listed = frozenset(one.source for one in error_sources(quantized))
    left_out = (
        every_source(quantized)
        - listed
        - {Source("tensor", name) for one in error_sources(quantized) for name in one.tensors}
    )
    # Roundings to float16 are left out; int8 is coarser by far.
    assert max(noise_of(subject, quantized, left_out)) < 1e-5


@settings(max_examples=4)
@given(data=st.data())
def test_tensors_that_pass_values_on_add_nothing_to_the_first(subject: Subject, data: st.DataObject) -> None:
    quantized = edited(subject.quantized, data.draw(edits_of(subject.quantized)), TARGETS["rk3588"])
    for one in error_sources(quantized):
        if len(one.tensors) > 1:
            first = noise_of(subject, quantized, frozenset({one.source}))
            family = noise_of(subject, quantized, frozenset(Source("tensor", name) for name in one.tensors))
            # A factor between two grids moves the steps by some of float32's last digits.
            assert family == pytest.approx(first, rel=1e-3, abs=1e-12), one


def test_shares_add_up_and_the_largest_comes_first(subject: Subject) -> None:
    found = source_map(subject.quantized, subject.samples)
    shares = [one.share for one in found.sources]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    assert found.total == Judge(subject.quantized, subject.samples).run(subject.quantized)
    assert len(found.parts) == len(found.total.parts) == len(found.sources[0].noise)
    assert found.samples == len(subject.samples)
    for one in found.sources:
        if one.op != "Input":
            assert one.op in {layer.op for layer in subject.quantized.layers if layer.name == one.layer}


REORDERED = """
a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
t = Transpose <perm = [0, 2, 3, 1]> (a)
p, q = Split <axis = 3, num_outputs = 2> (t)
half = Mul (p, c)
y = Concat <axis = 3> (half, q)
"""


@pytest.fixture
def reordered(tmp_path: Path) -> tuple[Quantized, list[dict[str, Array]]]:
    constants = {"w": random(8, 3, 3, 3), "c": np.array([0.5], np.float32)}
    samples = [random(1, 3, 8, 8, seed=seed) for seed in range(3)]
    session = built(tmp_path, network({"x": (1, 3, 8, 8)}, REORDERED, constants), [[sample] for sample in samples])
    return wished(session), [{"x": sample} for sample in samples]


def names(quantized: Quantized) -> list[str]:
    return [one.source.name for one in error_sources(quantized) if one.tensors]


def test_a_grid_that_is_passed_on_is_one_source(reordered: tuple[Quantized, list[dict[str, Array]]]) -> None:
    quantized, _ = reordered
    family = {one.source.name: one.tensors for one in error_sources(quantized) if one.tensors}
    assert set(family["a"]) >= {"a", "t", "p", "q"}
    assert not {"t", "p", "q"} & family.keys()


def test_a_tensor_between_float16_layers_is_no_source(reordered: tuple[Quantized, list[dict[str, Array]]]) -> None:
    quantized, _ = reordered
    table = quantized.table
    whole = quantized.changed(
        table=type(table)(table.rows, dict.fromkeys(["a", "t", "p", "q", "half", "y"], "float16"))
    )
    assert names(whole) == ["x"]
    assert "a" in names(quantized.changed(table=type(table)(table.rows, {"a": "float16"}))), "an int8 layer reads it"


def test_errors_that_biases_take_up_are_left_out(tmp_path: Path) -> None:
    body = "a = Tanh (x)\ny = Conv <kernel_shape = [1, 1]> (a, w)"
    proto = network({"x": (1, 2, 4, 4)}, body, {"w": random(3, 2, 1, 1)})
    # One value everywhere is rounded by the same everywhere.
    session = built(tmp_path, proto, [[random(1, 2, 4, 4, spread=3.0)]])
    sample = {"x": np.full((1, 2, 4, 4), 0.123, np.float32)}
    quantized = wished(session)
    a, y = ([one.source for one in error_sources(quantized)].index(Source("tensor", name)) for name in "ay")
    plain = measure_sources(quantized, [sample], Progress())
    corrected = measure_sources(quantized, [sample], Progress(), corrected=True)
    assert plain[a][0] > 1e-8
    assert corrected[a][0] < plain[a][0] * 1e-6
    assert corrected[y] == plain[y], "no bias comes behind it"


class InOrder(Executor):
    """Does each job when it is submitted."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def processes() -> Executor:
    """Spawned ones: ONNX Runtime's threads do not survive a fork."""
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


EXECUTORS = [InOrder, lambda: ThreadPoolExecutor(2), processes]


@pytest.mark.parametrize("make", EXECUTORS)
def test_any_executor_finds_the_same(subject: Subject, make: Callable[[], Executor]) -> None:
    def plain(found: SourceMap) -> object:
        return found.parts, found.sources, found.total

    alone = source_map(subject.quantized, subject.samples)
    with make() as executor:
        assert plain(source_map(subject.quantized, subject.samples, executor=executor)) == plain(alone)


def test_it_can_be_cancelled(subject: Subject) -> None:
    told: list[str] = []
    progress = Progress(lambda stage, done, total: told.append(stage), lambda: len(told) > 2)
    with pytest.raises(Cancelled):
        source_map(subject.quantized, subject.samples, progress)
