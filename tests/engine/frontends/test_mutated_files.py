"""Damaged files of every framework end in an EngineError or a model, in bounded time and memory."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.frontends.mutated_files import Worker, damaged, missing, table, try_files
from tests.engine.frontends.mutation_seeds import FRAMEWORKS, seeds, zoo_seeds
from tests.engine.frontends.mutations import mutate

# PyTorch reads each file in a process of its own.
_FEW = dict.fromkeys(FRAMEWORKS, 20) | {"pytorch": 10}
_SMALL = 60_000  # bytes
_MANY = dict.fromkeys(FRAMEWORKS, 300) | {"pytorch": 100}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One process for all quick tests; starting it takes longer than most of them."""
    with Worker() as started:
        yield started


def test_the_same_numbers_damage_a_file_in_the_same_way() -> None:
    seed = seeds("onnx")[0]
    assert damaged(seed, "onnx", 1, 5) == damaged(seed, "onnx", 1, 5) != damaged(seed, "onnx", 1, 6)
    assert len({mutate(b"", "text", random.Random(0)), mutate(b"", "bytes", random.Random(0))}) >= 1


@pytest.mark.slow
def test_every_kind_of_harm_is_noticed_and_the_next_file_is_loaded(tmp_path: Path) -> None:
    kinds = {}
    path = tmp_path / "wish"
    for seconds, wishes in ((20.0, ("load", "refuse", "raise", "abort", "grow")), (0.3, ("wait", "compute", "load"))):
        with Worker(seconds) as own:
            for wish in wishes:
                path.write_text(wish, encoding="utf-8")
                kinds[wish] = own.load_with("tests.engine.frontends.harmful_front_end", [path], {}).kind
    harmful = {"raise": "foreign", "abort": "crash", "grow": "memory", "wait": "hang", "compute": "hang"}
    assert kinds == {"load": "loaded", "refuse": "refused", **harmful}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_undamaged_files_load_and_damaged_ones_do_no_harm(framework: str, worker: Worker, tmp_path: Path) -> None:
    reason = missing(framework)
    if reason:
        pytest.skip(reason)
    # Importing torch here as well takes longer than all the rest.
    found = (framework == "pytorch" and zoo_seeds(framework)) or seeds(framework)
    found = [seed for seed in found if sum(map(len, seed.files.values())) < _SMALL] or found[:1]
    for seed in found[:3]:
        folder = tmp_path / seed.name
        folder.mkdir()
        for name, data in seed.files.items():
            (folder / name).write_bytes(data)
        outcome = worker.load(framework, folder, seed)
        assert outcome.kind == "loaded", f"{seed.name}: {outcome.detail}"
    for index in range(_FEW[framework]):
        seed = found[index % len(found)]
        folder = tmp_path / str(index)
        folder.mkdir()
        for name, data in damaged(seed, framework, 0, index).items():
            (folder / name).write_bytes(data)
        outcome = worker.load(framework, folder, seed)
        assert not outcome.faulty, f"{seed.name}, number {index}: {outcome.kind}: {outcome.detail}"
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_hundreds_of_damaged_files_do_no_harm(framework: str, tmp_path: Path) -> None:
    report = try_files(framework, _MANY[framework], 1, tmp_path)
    if report.note:
        pytest.skip(report.note)
    print(table([report]))
    assert report.counts.total() == _MANY[framework]
    assert not report.faults, table([report])
