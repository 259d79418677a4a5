"""TFLite's recurrent operators and its control flow compute what LiteRT computes on the first run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import UnsupportedOperator
from engine.frontends import tflite
from tests.engine.frontends.tflite_models import O, T, build, check, check_steps, const, ours

BATCH, TIME, SIZE, CELLS = 2, 5, 4, 6


def _lstm(
    *,
    time_major: bool = False,
    coupled: bool = False,
    peepholes: bool = False,
    projection: int = 0,
    norms: bool = False,
    hybrid: bool = False,
    clip: float = 0.0,
) -> tuple[list[T], O]:
    rng = np.random.default_rng(4)
    width = projection or CELLS
    tensors = [T("x", (TIME, BATCH, SIZE) if time_major else (BATCH, TIME, SIZE))]
    names = ["x"]

    def add(name: str, shape: tuple[int, ...], there: bool, quantized: bool = False) -> None:
        names.append(name if there else "")
        if there and quantized:
            tensors.append(T(name, shape, "int8", rng.integers(-127, 128, shape).astype(np.int8), scale=0.01))
        elif there:
            tensors.append(const(name, rng.uniform(-1, 1, shape)))

    for gate in "ifco":
        add(f"w_{gate}", (CELLS, SIZE), not (coupled and gate == "i"), hybrid)
    for gate in "ifco":
        add(f"r_{gate}", (CELLS, width), not (coupled and gate == "i"), hybrid)
    for gate in "ifo":
        add(f"p_{gate}", (CELLS,), peepholes and not (coupled and gate == "i"))
    for gate in "ifco":
        add(f"b_{gate}", (CELLS,), not (coupled and gate == "i"))
    add("projection", (projection, CELLS), bool(projection), hybrid)
    add("projection_bias", (projection,), bool(projection))
    tensors += [T("h", (BATCH, width), variable=True), T("c", (BATCH, CELLS), variable=True)]
    names += ["h", "c"]
    for gate in "ifco":
        add(f"n_{gate}", (CELLS,), norms and not (coupled and gate == "i"))
    if not norms:
        names = names[:20]
    tensors.append(T("y", (TIME, BATCH, width) if time_major else (BATCH, TIME, width)))
    options = {"fusedActivationFunction": 4, "cellClip": clip, "timeMajor": time_major}
    return tensors, O("UNIDIRECTIONAL_SEQUENCE_LSTM", names, ["y"], "UnidirectionalSequenceLSTMOptions", options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"time_major": True},
        {"coupled": True},
        {"peepholes": True},
        {"coupled": True, "peepholes": True},
        {"projection": 3},
        {"norms": True, "projection": 3, "peepholes": True},
        {"norms": True, "coupled": True},
        {"projection": 3, "clip": 0.3},
    ],
    ids=str,
)
def test_lstm(options: dict[str, Any], tmp_path: Path) -> None:
    tensors, op = _lstm(**options)
    check(tensors, [op], ["x"], ["y"], tmp_path, close=2e-3 if "norms" in options else 1e-4)


def test_an_lstm_whose_clip_counts_is_written_out(tmp_path: Path) -> None:
    tensors, op = _lstm(clip=0.3)
    check(tensors, [op], ["x"], ["y"], tmp_path)


def test_an_lstm_of_integer_weights(tmp_path: Path) -> None:
    tensors, op = _lstm(hybrid=True)
    check(tensors, [op], ["x"], ["y"], tmp_path, close=5e-2)  # its kernels also round what they multiply


def test_one_step_of_an_lstm(tmp_path: Path) -> None:
    tensors, op = _lstm(peepholes=True, projection=3)
    tensors = [t for t in tensors if t.name not in ("x", "y")]
    tensors += [T("x", (BATCH, SIZE)), T("y", (BATCH, 3)), *(T(f"scratch{k}", (BATCH, 4 * CELLS)) for k in range(1))]
    one = O("LSTM", op.inputs, ["y"], "LSTMOptions", {"fusedActivationFunction": 4, "cellClip": 0.5})
    check([*tensors], [one], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("assigned_first", [False, True])
def test_a_variable_starts_with_what_the_file_fills_it_with(assigned_first: bool, tmp_path: Path) -> None:
    def handle(name: str) -> O:
        return O("VAR_HANDLE", [], [name], "VarHandleOptions", {"sharedName": "state"})

    once = (
        [T("r", (), "resource"), const("first", [1.0, 2.0])],
        [handle("r"), O("ASSIGN_VARIABLE", ["r", "first"], [])],
        [],
        [],
    )
    tensors = [T("x", (2,)), T("r", (), "resource"), T("old", (2,)), T("y", (2,)), T("twice", (2,))]
    read = O("READ_VARIABLE", ["r"], ["old"])
    write = [O("ADD", ["x", "x"], ["twice"], "AddOptions"), O("ASSIGN_VARIABLE", ["r", "twice"], [])]
    ops = [O("CALL_ONCE", [], [], "CallOnceOptions", {"initSubgraphIndex": 1}), handle("r")]
    ops += [*write, read] if assigned_first else [read, *write]
    ops.append(O("SUB", ["x", "old"], ["y"], "SubOptions"))
    check(tensors, ops, ["x"], ["y"], tmp_path, more=[once])


def test_a_branch_that_a_constant_decides(tmp_path: Path) -> None:
    def branch(kind: str) -> tuple[Any, ...]:
        return [T("a", (4,)), T("b", (4,))], [O(kind, ["a"], ["b"])], ["a"], ["b"]

    for value, want in ((True, np.abs), (False, np.negative)):
        tensors = [T("x", (4,)), const("which", np.array([value])), T("y", (4,))]
        op = O("IF", ["which", "x"], ["y"], "IfOptions", {"thenSubgraphIndex": 1, "elseSubgraphIndex": 2})
        data = build(tensors, [op], ["x"], ["y"], more=[branch("ABS"), branch("NEG")])
        x = np.array([1.0, -2.0, 3.0, -4.0], np.float32)
        np.testing.assert_array_equal(ours(data, {"x": x}, tmp_path)[0], want(x))


def _rnn() -> list[T]:
    rng = np.random.default_rng(5)
    return [
        const("w", rng.uniform(-1, 1, (CELLS, SIZE))),
        const("r", rng.uniform(-1, 1, (CELLS, CELLS))),
        const("b", rng.uniform(-1, 1, CELLS)),
        T("h", (BATCH, CELLS), variable=True),
    ]


@pytest.mark.parametrize("activation", [0, 1, 4])
@pytest.mark.parametrize("time_major", [False, True])
def test_rnn(time_major: bool, activation: int, tmp_path: Path) -> None:
    shape = (TIME, BATCH) if time_major else (BATCH, TIME)
    tensors = [T("x", (*shape, SIZE)), *_rnn(), T("y", (*shape, CELLS))]
    options = {"timeMajor": time_major, "fusedActivationFunction": activation}
    op = O("UNIDIRECTIONAL_SEQUENCE_RNN", ["x", "w", "r", "b", "h"], ["y"], "SequenceRNNOptions", options)
    check(tensors, [op], ["x"], ["y"], tmp_path)


def test_one_step_of_an_rnn(tmp_path: Path) -> None:
    tensors = [T("x", (BATCH, SIZE)), *_rnn(), T("y", (BATCH, CELLS))]
    op = O("RNN", ["x", "w", "r", "b", "h"], ["y"], "RNNOptions", {"fusedActivationFunction": 4})
    check(tensors, [op], ["x"], ["y"], tmp_path)


@pytest.mark.parametrize("merged", [False, True])
def test_a_bidirectional_lstm(merged: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    tensors, names = [T("x", (TIME, BATCH, SIZE))], ["x"]
    for way in ("f", "b"):
        for kind, shape in (("w", (CELLS, SIZE)), ("r", (CELLS, CELLS)), ("p", ()), ("b", (CELLS,)), ("q", ())):
            for gate in {"p": "ifo", "q": "wb"}.get(kind, "ifco"):
                names.append(f"{way}{kind}{gate}" if shape else "")
                if shape:
                    tensors.append(const(names[-1], rng.uniform(-1, 1, shape)))
    for state in ("fh", "fc", "bh", "bc"):
        names.append(state)
        tensors.append(T(state, (BATCH, CELLS), variable=True))
    names += [""] * 9
    outputs = ["y"] if merged else ["y", "z"]
    tensors += [T(name, (TIME, BATCH, 2 * CELLS if merged else CELLS)) for name in outputs]
    options = {"fusedActivationFunction": 4, "timeMajor": True, "mergeOutputs": merged}
    op = O("BIDIRECTIONAL_SEQUENCE_LSTM", names, outputs, "BidirectionalSequenceLSTMOptions", options)
    check(tensors, [op], ["x"], outputs, tmp_path)


def test_a_filter_over_time_sees_the_newest_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rank, units, memory = 2, 3, 4
    tensors = [
        T("x", (BATCH, SIZE)),
        const("w", rng.uniform(-1, 1, (units * rank, SIZE))),
        const("t", rng.uniform(-1, 1, (units * rank, memory))),
        const("b", rng.uniform(-1, 1, units)),
        T("s", (BATCH, memory * units * rank), variable=True),
        T("y", (BATCH, units)),
    ]
    op = O("SVDF", ["x", "w", "t", "b", "s"], ["y"], "SVDFOptions", {"rank": rank, "fusedActivationFunction": 1})
    check(tensors, [op], ["x"], ["y"], tmp_path)


def _loop(limit: list[T], compared: str) -> tuple[Any, ...]:
    """x doubles until a counter reaches 4."""
    main = (
        [T("x", (2,)), const("zero", 0, "int32"), T("count", (), "int32"), T("y", (2,))],
        [O("WHILE", ["zero", "x"], ["count", "y"], "WhileOptions", {"condSubgraphIndex": 1, "bodySubgraphIndex": 2})],
        ["x"],
        ["y"],
    )
    condition = (
        [T("i", (), "int32"), T("v", (2,)), *limit, T("go", (), "bool")],
        [O("LESS", [compared, limit[0].name], ["go"])],
        ["i", "v"],
        ["go"],
    )
    body = (
        [T("i", (), "int32"), T("v", (2,)), const("one", 1, "int32"), T("j", (), "int32"), T("w", (2,))],
        [O("ADD", ["i", "one"], ["j"], "AddOptions"), O("ADD", ["v", "v"], ["w"], "AddOptions")],
        ["i", "v"],
        ["j", "w"],
    )
    return main, condition, body


def test_a_loop_that_counts_is_written_out(tmp_path: Path) -> None:
    main, *more = _loop([const("four", 4, "int32")], "i")
    check(*main, tmp_path, more=more)


def test_a_loop_that_fills_a_list_is_written_out(tmp_path: Path) -> None:
    """As an exported recurrent layer is: each round takes one step of the input and puts one into the results."""
    steps, width = 3, 2
    main = (
        [
            T("x", (steps, width)),
            const("zero", 0, "int32"),
            const("none", np.zeros((steps, width))),
            const("start", np.zeros((1, width))),
            T("n", (), "int32"),
            T("h", (1, width)),
            T("y", (steps, width)),
            T("same", (steps, width)),
        ],
        [
            O(
                "WHILE",
                ["zero", "start", "none", "x"],
                ["n", "h", "y", "same"],
                "WhileOptions",
                {"condSubgraphIndex": 1, "bodySubgraphIndex": 2},
            )
        ],
        ["x"],
        ["y", "h"],
    )
    state = [T("i", (), "int32"), T("h", (1, width)), T("list", (steps, width)), T("x", (steps, width))]
    condition = (
        [*state, const("limit", steps, "int32"), T("go", (), "bool")],
        [O("LESS", ["i", "limit"], ["go"])],
        [t.name for t in state],
        ["go"],
    )
    body = (
        [
            *state,
            const("one", 1, "int32"),
            const("zero", 0, "int32"),
            const("rest", -1, "int32"),
            const("begin", [0, 0], "int32"),
            T("next", (), "int32"),
            T("now", (1, width)),
            T("row", (2,), "int32"),
            T("size", (2,), "int32"),
            const("one_row", [1, -1], "int32"),
            T("sum", (1, width)),
            T("new", (1, width)),
            T("behind", (2,), "int32"),
            const("all_rows", [-1, -1], "int32"),
            T("before_part", (0, width)),
            T("behind_part", (2, width)),
            T("result", (steps, width)),
        ],
        [
            O("ADD", ["i", "one"], ["next"], "AddOptions"),
            O("PACK", ["i", "zero"], ["row"], "PackOptions", {"valuesCount": 2}),
            O("SLICE", ["x", "row", "one_row"], ["now"], "SliceOptions"),
            O("ADD", ["now", "h"], ["sum"], "AddOptions"),
            O("TANH", ["sum"], ["new"]),
            O("PACK", ["i", "rest"], ["size"], "PackOptions", {"valuesCount": 2}),
            O("SLICE", ["list", "begin", "size"], ["before_part"], "SliceOptions"),
            O("PACK", ["next", "zero"], ["behind"], "PackOptions", {"valuesCount": 2}),
            O("SLICE", ["list", "behind", "all_rows"], ["behind_part"], "SliceOptions"),
            O("CONCATENATION", ["before_part", "new", "behind_part"], ["result"], "ConcatenationOptions", {"axis": 0}),
        ],
        [t.name for t in state],
        ["next", "new", "result", "x"],
    )
    x = np.random.default_rng(0).uniform(-1, 1, (steps, width)).astype(np.float32)
    rows, last = [], np.zeros((1, width), np.float32)
    for row in x:
        last = np.tanh(last + row)
        rows.append(last[0])
    # Slices of no elements are beyond LiteRT's kernels, unless a converter marks them.
    found = ours(build(*main, more=[condition, body]), {"x": x}, tmp_path)
    np.testing.assert_allclose(found[0], np.stack(rows), atol=1e-5)
    np.testing.assert_allclose(found[1], last, atol=1e-5)


def test_a_loop_that_the_data_ends_is_refused(tmp_path: Path) -> None:
    main, *more = _loop([const("limit", [4.0])], "v")
    file = tmp_path / "model.tflite"
    file.write_bytes(build(*main, more=more))
    with pytest.raises(UnsupportedOperator, match=r"WHILE \(count: what ends the loop depends on the data"):
        tflite.load(file)


def test_an_integer_lstm(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    x = {"dtype": "int8", "scale": 0.02, "zero": 3}
    h = {"dtype": "int8", "scale": 1 / 128, "zero": 0}
    tensors, names = [T("x", (BATCH, TIME, SIZE), **x)], ["x"]
    for kind, shape in (("w", (CELLS, SIZE)), ("r", (CELLS, CELLS))):
        for gate in "ifco":
            names.append(kind + gate)
            tensors.append(T(kind + gate, shape, "int8", rng.integers(-127, 128, shape).astype(np.int8), scale=0.007))
    names += [""] * 3
    for gate in "ifco":
        names.append(f"b{gate}")
        data = rng.integers(-3000, 3000, CELLS).astype(np.int32)
        tensors.append(T(f"b{gate}", (CELLS,), "int32", data, scale=0.02 * 0.007))
    names += ["", "", "h", "c", "", "", "", ""]
    tensors += [
        T("h", (BATCH, CELLS), variable=True, **h),
        T("c", (BATCH, CELLS), "int16", variable=True, scale=1 / 2**11, zero=0),
        *(T(f"i{k}", (), "int16", scale=1 / 2**12, zero=0) for k in range(4)),
        T("i4", (), "int8", scale=1 / 128, zero=0),
        T("y", (BATCH, TIME, CELLS), **h),
    ]
    op = O(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        names,
        ["y"],
        "UnidirectionalSequenceLSTMOptions",
        {"fusedActivationFunction": 4, "cellClip": 10.0},
        intermediates=[f"i{k}" for k in range(5)],
    )
    check_steps(tensors, [op], ["x"], ["y"], tmp_path, steps=2)
