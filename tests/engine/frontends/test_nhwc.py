"""Tensors of channels-last frameworks are turned at most once, computed from constants early, and keep their names."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ModelError
from engine.frontends import nhwc
from engine.frontends.making import GraphMaker
from engine.frontends.nhwc import Grid, Place, Tensor
from engine.graph.given import given


def _maker() -> GraphMaker:
    return GraphMaker("model")


def _input(maker: GraphMaker, *shape: int) -> Tensor:
    return Tensor.of(maker.input("x", shape, layout="nhwc"), Place(maker, "x"))


def _convolved(x: Tensor, name: str = "c") -> Tensor:
    weights = Tensor.constant(np.ones((1, 1, x.shape[-1], 4)), Place(x.maker, f"{name}_weights"))
    return nhwc.convolution(x, weights, None, Place(x.maker, name), strides=(1, 1))


def test_a_tensor_is_turned_once_however_often_it_is_read() -> None:
    maker = _maker()
    x = _input(maker, 1, 4, 4, 3)
    total = nhwc.binary(_convolved(x, "a"), _convolved(x, "b"), Place(maker, "sum"), "Add")
    model = maker.model([total.output()])
    assert [node.op_type for node in model.graph].count("Transpose") == 2
    assert [v.name for v in model.graph.outputs] == ["sum"]
    assert next(n for n in model.graph if n.op_type == "Add").outputs[0].name == "sum_nchw"


def test_only_axes_of_one_element_are_moved_by_a_reshape() -> None:
    maker = _maker()
    x = _input(maker, 1, 1, 1, 3)
    model = maker.model([_convolved(x).output()])
    assert [node.op_type for node in model.graph] == ["Reshape", "Conv", "Reshape"]


def test_lower_ranks_are_aligned_where_the_channels_come_first() -> None:
    maker = _maker()
    c = _convolved(_input(maker, 1, 5, 6, 3))
    row = Tensor.of(maker.input("row", (6, 4)), Place(maker, "row"))
    result = nhwc.binary(c, row, Place(maker, "y"), "Mul")
    assert result.shape == (1, 5, 6, 4)
    assert [n.op_type for n in maker.model([result.output()]).graph].count("Transpose") == 3


def test_parameters_are_noted_on_both_orders_with_their_axis() -> None:
    maker = _maker()
    c = _convolved(_input(maker, 1, 4, 4, 3)).quantized(Grid("uint8", (0.1, 0.2, 0.3, 0.4), (0, 1, 2, 3), 3))
    first, plain = given(c.first()), given(c.plain())
    assert first is not None and plain is not None
    assert (first.axis, plain.axis) == (1, 3)
    assert plain.dtype == "int8" and plain.zero_point == (-128, -127, -126, -125)


def test_what_constants_decide_is_known_while_the_graph_is_made() -> None:
    maker = _maker()
    shape = Tensor.constant(np.array([2, 3], np.int32), Place(maker, "shape"))
    twice = nhwc.binary(shape, shape, Place(maker, "twice"), "Add")
    for level in range(200):  # a diamond on a diamond: each level reads the one before twice
        twice = nhwc.binary(
            twice, nhwc.unary(twice, Place(maker, f"n{level}"), "Neg"), Place(maker, f"d{level}"), "Max"
        )
    assert twice.integers() == [4, 6]
    x = _input(maker, 1, 2)
    assert nhwc.binary(x, x, Place(maker, "y"), "Add").array is None


def test_a_block_move_that_something_else_reads_is_computed() -> None:
    maker = _maker()
    moved = nhwc.space_to_batch(_input(maker, 1, 4, 4, 3), Place(maker, "s"), block=[2, 2], pads=[(0, 0), (0, 0)])
    assert moved.shape == (4, 2, 2, 3)
    assert maker.shape(moved.plain()) == (4, 2, 2, 3)


@pytest.mark.parametrize("size", [(0, 4), (1 << 20, 1 << 20)], ids=str)
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    maker = _maker()
    with pytest.raises(ModelError):
        nhwc.resize(_input(maker, 1, 4, 4, 3), Place(maker, "y"), size=size, kind="linear")


def test_what_does_not_fit_is_refused_with_its_node() -> None:
    maker = _maker()
    x = _input(maker, 1, 4, 4, 3)
    weights = Tensor.constant(np.ones((1, 1, 2, 4)), Place(maker, "w"))
    with pytest.raises(ModelError, match="has weights") as caught:
        nhwc.convolution(x, weights, None, Place(maker, "y", "conv"), strides=(1, 1))
    assert caught.value.where == "model: conv"
    with pytest.raises(ModelError, match="reshapes"):
        nhwc.reshape(x, Place(maker, "y"), [5, -1])
    with pytest.raises(ModelError, match="axis 4"):
        nhwc.reduce(x, Place(maker, "y"), "mean", axes=[4])
