"""Rows that belong together: by their names' scopes, or by operators that repeat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rknn_tui.graph.blocks import Block, find_blocks

part = st.sampled_from(["model", "m.0", "m.1", "cv1", "conv", "p2o", "x", "tmp_0", "", "3"])
names = st.lists(part, min_size=1, max_size=4).map("/".join) | st.lists(part, min_size=1, max_size=3).map(".".join)
ops = st.sampled_from(["Conv", "ConvRelu", "Add", "Mul"])
anything = st.lists(st.tuples(names, ops), max_size=40)
repeating = st.lists(st.tuples(st.lists(ops, min_size=1, max_size=5), st.integers(1, 4)), max_size=6).map(
    lambda stretches: [(f"t{n}", op) for n, op in enumerate(op for unit, times in stretches for op in unit * times)]
)


def outline(blocks: tuple[Block, ...]) -> list[str]:
    return [f"{'  ' * block.level}{block.name} {block.first}-{block.last}" for block in blocks]


@given(anything | repeating)
def test_blocks_have_two_rows_or_more_and_lie_inside_each_other_or_apart(rows: list[tuple[str, str]]) -> None:
    blocks = find_blocks([name for name, _ in rows], [op for _, op in rows])
    around: list[Block] = []
    for block in blocks:
        assert 0 <= block.first < block.last < len(rows)
        while around and around[-1].last < block.first:
            around.pop()
        assert block.level == len(around)
        if around:
            assert block.last <= around[-1].last
            assert (block.first, block.last) != (around[-1].first, around[-1].last)
        around.append(block)


@given(repeating)
def test_every_block_of_operators_has_its_like_elsewhere_or_repeats_inside(rows: list[tuple[str, str]]) -> None:
    found = [op for _, op in rows]
    blocks = find_blocks([name for name, _ in rows], found)
    for block in blocks:
        inside = found[block.first : block.last + 1]
        whole = [found[row : row + block.size] for row in range(len(found) - block.size + 1)]
        times = int(block.name.rpartition("×")[2].partition(" ")[0]) if " ×" in block.name else 1
        if times > 1:
            assert inside == inside[: block.size // times] * times
        else:
            assert whole.count(inside) > 1
        assert len(set(inside)) > 1


def test_scopes_of_names_are_blocks_but_not_the_one_around_everything() -> None:
    names = [
        "images",
        "/model.0/conv/Conv_output_0",
        "/model.2/cv1/conv/Conv_output_0",
        "/model.2/m.0/cv1/conv/Conv_output_0",
        "/model.2/m.0/cv2/conv/Conv_output_0",
        "/model.2/m.1/cv1/conv/Conv_output_0",
        "/model.2/m.1/cv2/conv/Conv_output_0",
        "/model.2/Concat_output_0",
        "/model.3/conv/Conv_output_0",
    ]
    ops = ["Input", *["Conv"] * 6, "Concat", "Conv"]
    expected = ["/model.2 2-7", "  /model.2/m.0 3-4", "  /model.2/m.1 5-6"]
    assert outline(find_blocks(names, ops)) == expected
    net = [name if name == "images" else f"/net{name}" for name in names]
    assert outline(find_blocks(net, ops)) == [line.replace("/model", "/net/model") for line in expected]
    dotted = [name.strip("/").replace("/", ".") for name in names]
    assert outline(find_blocks(dotted, ops)) == ["model.2 2-7", "  model.2.m.0 3-4", "  model.2.m.1 5-6"]


def test_a_prefix_that_names_a_kind_of_layer_is_no_block() -> None:
    names = ["x", "p2o.Conv.0", "p2o.Mul.1", "hs.0", "p2o.Conv.2", "p2o.Mul.3", "hs.1", "p2o.Add.4", "p2o.Mul.5", "y"]
    ops = ["Input", "Conv", "Mul", "HardSwish", "Conv", "Mul", "HardSwish", "Add", "Mul", "Relu"]
    assert outline(find_blocks(names, ops)) == [
        "Conv·Mul·HardSwish ×2 #1 1-6",
        "  Conv·Mul·HardSwish #1 1-3",
        "  Conv·Mul·HardSwish #4 4-6",
    ]


def test_a_scope_that_others_interrupt_has_a_block_for_each_part() -> None:
    names = ["a/x", "a/y", "b", "a/z", "a/w", "c/x", "c/y"]
    assert outline(find_blocks(names, ["Conv"] * 7)) == ["a 0-1", "a 3-4", "c 5-6"]


def test_a_repetition_starts_where_the_same_sequence_started_elsewhere() -> None:
    unit = ["ConvRelu", "Pool", "Mul", "Add"]
    ops = ["Input", *unit * 3, "Split", "Add", *unit * 2, "Sigmoid"]
    numbers = range(100, 100 + len(ops))
    assert outline(find_blocks([f"t{n}" for n in range(len(ops))], ops, numbers)) == [
        "ConvRelu·Pool·Mul·… ×3 #101 1-12",
        "  ConvRelu·Pool·Mul·… #101 1-4",
        "  ConvRelu·Pool·Mul·… #105 5-8",
        "  ConvRelu·Pool·Mul·… #109 9-12",
        "ConvRelu·Pool·Mul·… ×2 #115 15-22",
        "  ConvRelu·Pool·Mul·… #115 15-18",
        "  ConvRelu·Pool·Mul·… #119 19-22",
    ]


def test_repetitions_inside_a_repetition_and_sequences_in_several_places() -> None:
    stage = ["Conv", "Add", "Conv", "Add", "Pool"]
    ops = [*stage * 2, "Resize", "Gemm", "Relu", "Mul", "Softmax", "Gemm", "Relu", "Mul"]
    assert outline(find_blocks([f"t{n}" for n in range(len(ops))], ops)) == [
        "Conv·Add·Conv·… ×2 #0 0-9",
        "  Conv·Add·Conv·… #0 0-4",
        "    Conv·Add ×2 #0 0-3",
        "      Conv·Add #0 0-1",
        "      Conv·Add #2 2-3",
        "  Conv·Add·Conv·… #5 5-9",
        "    Conv·Add ×2 #5 5-8",
        "      Conv·Add #5 5-6",
        "      Conv·Add #7 7-8",
        "Gemm·Relu·Mul #11 11-13",
        "Gemm·Relu·Mul #15 15-17",
    ]


def test_a_chain_of_one_operator_and_no_rows_have_no_blocks() -> None:
    assert find_blocks([f"t{n}" for n in range(9)], ["Conv"] * 9) == ()
    assert find_blocks([], []) == ()
