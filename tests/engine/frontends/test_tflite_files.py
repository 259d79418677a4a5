"""Files that are no TFLite models, or contradict themselves, end in an error that says so, and soon."""

from __future__ import annotations

import contextlib
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, EngineError, FileError, ModelError, UnsupportedOperator
from engine.frontends import tflite
from tests.engine.frontends.tflite_models import O, T, build, const


def _small() -> bytes:
    tensors = [
        T("x", (1, 8, 8, 3), signature=(-1, 8, 8, 3)),
        const("w", np.ones((4, 3, 3, 3))),
        const("b", np.zeros(4)),
        T("c", (1, 8, 8, 4)),
        const("shape", [-1, 256], "int32"),
        T("r", (1, 256)),
        T("y", (1, 256)),
    ]
    ops = [
        O("CONV_2D", ["x", "w", "b"], ["c"], "Conv2DOptions", {"strideH": 1, "strideW": 1}),
        O("RESHAPE", ["c", "shape"], ["r"], "ReshapeOptions"),
        O("SOFTMAX", ["r"], ["y"], "SoftmaxOptions", {"beta": 1.0}),
    ]
    return build(tensors, ops, ["x"], ["y"])


def _load(data: bytes, folder: Path) -> None:
    file = folder / "model.tflite"
    file.write_bytes(data)
    tflite.load(file)


def test_what_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        tflite.load(tmp_path / "none.tflite")
    for data in (b"TFL3", b"\0" * 64, b"not a model at all"):
        with pytest.raises(ModelError, match="is not a TFLite model"):
            _load(data, tmp_path)


def test_every_truncation_ends_in_an_error(tmp_path: Path) -> None:
    data = _small()
    for length in range(1, len(data), 97):
        with pytest.raises(ModelError):
            _load(data[:length], tmp_path)


def _mutated(data: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(8, len(changed))
        kind = rng.randrange(3)
        if kind == 0:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif place + 4 <= len(changed):
            changed[place : place + 4] = struct.pack("<I", rng.choice([0, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, len(data)]))
    return bytes(changed)


def _survives(seeds: range, folder: Path) -> None:
    data = _small()
    for seed in seeds:
        started = time.monotonic()
        with contextlib.suppress(EngineError):
            _load(_mutated(data, seed), folder)
        assert time.monotonic() - started < 5, seed


def test_mutated_files_end_in_an_error_or_a_model(tmp_path: Path) -> None:
    _survives(range(60), tmp_path)


@pytest.mark.slow
def test_many_mutated_files_end_in_an_error_or_a_model(tmp_path: Path) -> None:
    _survives(range(1000, 3000), tmp_path)


def test_huge_shapes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    for shape in ((1 << 30, 1 << 30), (-5, 3)):
        with pytest.raises(ModelError, match="has the shape"):
            _load(build([T("x", shape), T("y", shape)], [O("RELU", ["x"], ["y"])], ["x"], ["y"]), tmp_path)
    tensors = [T("x", (1, 4)), const("times", [1, 2**30], "int32"), T("y", (1, 4))]
    with pytest.raises(ModelError, match="would make the shape"):
        _load(build(tensors, [O("TILE", ["x", "times"], ["y"])], ["x"], ["y"]), tmp_path)
    tensors = [
        const("start", 0, "int32"),
        const("end", 2**31 - 1, "int32"),
        const("by", 1, "int32"),
        T("y", (1,), "int32"),
    ]
    with pytest.raises(ModelError, match="counts from 0"):
        _load(build(tensors, [O("RANGE", ["start", "end", "by"], ["y"], "RangeOptions")], [], ["y"]), tmp_path)


def test_a_circle_is_refused(tmp_path: Path) -> None:
    tensors = [T("x", (4,)), T("a", (4,)), T("y", (4,))]
    ops = [O("ADD", ["x", "y"], ["a"], "AddOptions"), O("RELU", ["a"], ["y"])]
    with pytest.raises(ModelError, match="nothing makes it"):
        _load(build(tensors, ops, ["x"], ["y"]), tmp_path)


def test_calls_in_a_circle_are_refused(tmp_path: Path) -> None:
    inner = ([T("a", (4,)), T("b", (4,))], [O("CALL", ["a"], ["b"], "CallOptions", {"subgraph": 1})], ["a"], ["b"])
    main = ([T("x", (4,)), T("y", (4,))], [O("CALL", ["x"], ["y"], "CallOptions", {"subgraph": 1})], ["x"], ["y"])
    with pytest.raises(ModelError, match="in a circle"):
        _load(build(*main, more=[inner]), tmp_path)


def test_all_unsupported_operators_are_named_at_once(tmp_path: Path) -> None:
    tensors = [T("x", (4,)), T("a", (4,)), T("b", (4,)), T("y", (4,))]
    ops = [
        O("CUSTOM", ["x"], ["a"], custom="Magic"),
        O("UNIQUE", ["x"], ["b"]),
        O("ADD", ["a", "b"], ["y"], "AddOptions"),
    ]
    with pytest.raises(UnsupportedOperator, match=r"Magic \(a\), UNIQUE \(b\)"):
        _load(build(tensors, ops, ["x"], ["y"]), tmp_path)


def test_names_that_are_not_there_are_refused_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(_small())
    with pytest.raises(ConfigError, match="no tensor 'cc'"):
        tflite.load(file, outputs=["cc"])
    with pytest.raises(ConfigError, match="gives 2 shapes for 1 inputs"):
        tflite.load(file, input_size_list=[[1, 8, 8, 3], [1]])
    with pytest.raises(ConfigError, match="does not fit"):
        tflite.load(file, input_size_list=[[1, 8, 8]])


def test_an_open_batch_is_one_without_a_size(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(_small())
    graph = tflite.load(file).graph
    assert tuple(graph.inputs[0].shape or ()) == (1, 8, 8, 3)
    graph = tflite.load(file, input_size_list=[[3, 8, 8, 3]]).graph
    assert tuple(graph.outputs[0].shape or ()) == (3, 256)


def test_every_operator_is_listed_with_what_it_becomes() -> None:
    listed = tflite.operators()
    assert len(listed) >= 100
    assert list(listed) == sorted(listed)
    assert listed["CONV_2D"] == ("Conv",)
