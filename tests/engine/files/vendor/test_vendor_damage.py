"""Damaged files of the vendor's layouts end in a FileError, or in what is right of them, in bounded time and memory."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import FileError
from engine.files import vendor
from tests.engine.files.vendor.vendor_files import container, flatbuffer, full, full_slots
from tests.engine.files.vendor.vendor_loading import load
from tests.engine.files.vendor.vendor_models import examples, small
from tests.engine.frontends.mutated_files import Worker
from tests.engine.frontends.mutations import mutate

_FEW, _MANY = 400, 10_000
_LOADING = "tests.engine.files.vendor.vendor_loading"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


def _damaged(data: bytes, number: int) -> bytes:
    return mutate(data, "bytes", random.Random(f"vendor {number}"))


def test_damage_does_no_harm(tmp_path: Path) -> None:
    files = list(examples().values())
    path = tmp_path / "m.rknn"
    outcomes = set()
    for number in range(_FEW):
        path.write_bytes(_damaged(files[number % len(files)], number))
        try:
            load(path)
            outcomes.add("partial" if vendor.read(path).partial else "read")
        except FileError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "partial", "refused"}


def test_a_damaged_file_takes_little_memory_and_time(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "m.rknn"
    for name, data in examples().items():
        path.write_bytes(data)
        assert worker.load_with(_LOADING, [path], {}).kind == "loaded", name
        path.write_bytes(_damaged(data, 1))
        assert not worker.load_with(_LOADING, [path], {}).faulty, name


@pytest.mark.slow
def test_ten_thousand_damaged_files_do_no_harm(tmp_path: Path) -> None:
    files = list(examples().items())
    path = tmp_path / "m.rknn"
    counts: dict[str, int] = {}
    with Worker() as worker:
        for number in range(_MANY):
            name, data = files[number % len(files)]
            path.write_bytes(_damaged(data, _FEW + number))
            outcome = worker.load_with(_LOADING, [path], {})
            counts[outcome.kind] = counts.get(outcome.kind, 0) + 1
            assert not outcome.faulty, f"{name}, number {_FEW + number}: {outcome.kind}: {outcome.detail}"
    print(counts)
    assert set(counts) == {"loaded", "refused"}


@pytest.mark.parametrize("layout", examples())
def test_a_container_that_is_cut_short_is_refused_wherever_it_is_cut(layout: str, tmp_path: Path) -> None:
    data = examples()[layout]
    path = tmp_path / "m.rknn"
    for length in range(0, len(data), max(1, len(data) // 100)):
        path.write_bytes(data[:length])
        try:
            load(path)
        except FileError as error:
            assert str(path) in str(error)
        else:
            # Without a container, nothing tells how long a file should be.
            assert layout == "flatbuffer"


@pytest.mark.parametrize("part", ["[i32]", "string", "[table]", "edges"])
def test_lists_that_lie_over_each_other_end_in_a_limit(part: str, worker: Worker, tmp_path: Path) -> None:
    """Many tensors that are one and the same: read one by one, 10,000 times what the file holds."""
    place, content = {
        "[i32]": (3, ("[i32]", [1] * 200_000)),
        "string": (5, ("string", "x" * 1_000_000)),
        "[table]": (3, ("[i32]", [1])),
        "edges": (5, ("string", "x" * 1_000_000)),
    }[part]
    tensor = {place: content}
    count = {"[table]": 200_000, "edges": 2}.get(part, 10_000)
    graph: dict[int, Any] = {0: ("[table]", [tensor] * count)}
    if part == "edges":
        graph[1] = "[table]", [{1: ("string", "Add"), 4: ("[i32]", [0, 0]), 5: ("[i32]", [1])}] * 10_000
    path = tmp_path / "m.rknn"
    path.write_bytes(container(flatbuffer({**full_slots(small()), 2: ("[table]", [graph])}), 6))
    outcome = worker.load_with(_LOADING, [path], {})
    assert not outcome.faulty, outcome
    assert "more" in " ".join(vendor.read(path).partial)


def test_a_graph_that_goes_round_is_shown_without_the_edge_that_closes_it(tmp_path: Path) -> None:
    model = small()
    nodes = list(model.nodes)
    # The convolution reads what the addition makes of it.
    nodes[1] = dataclasses.replace(nodes[1], inputs=(6, 2, 3))
    path = tmp_path / "m.rknn"
    path.write_bytes(full(dataclasses.replace(model, nodes=tuple(nodes))))
    found = vendor.read(path)
    assert any("behind" in line for line in found.partial)
    assert {layer.name: layer.inputs for layer in found.summary().layers}["c"] == ()
