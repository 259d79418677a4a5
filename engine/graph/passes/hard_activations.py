"""Recognises hard-sigmoid and hard-swish in the forms that exporters spell them out in."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import Gate, clip_bounds, close, gate, is_float, keeps_shape, offset, scaled
from engine.graph.passes.rewriting import RewritePass, absorbable, absorbed, maker
from engine.graph.query import new_node, replace, static_shape

# The slopes that are in use: PyTorch's and MobileNetV3's 1/6, and ONNX's own default.
_SLOPES = (1 / 6, 0.2)


class RecogniseHardSigmoid(RewritePass):
    """With operands of Add and Mul in either order, and a = 1/6 or 1/5:

    - Clip(x + 0.5/a, 0, 1/a) * a, or divided by 1/a → HardSigmoid(x, a, 0.5)
    - Clip(x * a + 0.5, 0, 1) → HardSigmoid(x, a, 0.5)
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Mul", "Div", "Clip"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the hard sigmoid that ends in `node`."""
        found = _of_steps(node) if node.op_type == "Clip" else _of_scaled_clip(node)
        if found is None or not close(found.beta, 0.5):
            return False
        slope = next((slope for slope in _SLOPES if close(found.alpha, slope)), None)
        if slope is None or not keeps_shape(node, found.data):
            return False
        _become(graph, "HardSigmoid", found.data, [*found.nodes, node], {"alpha": slope, "beta": 0.5})
        return True


class RecogniseHardSwish(RewritePass):
    """The product of x, Clip(x + 3, 0, 6) and 1/6 in any order, as Mul or Div → HardSwish(x).

    Also x * HardSigmoid(x) with slope 1/6 and offset 0.5, which is the same.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Mul", "Div"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the hard swish that ends in `node`."""
        product = _factors(node)
        if product is None:
            return False
        number, (left, right), nodes = product
        for data, other in ((left, right), (right, left)):
            found = gate(other)
            if (
                found is not None
                and found.data is data
                and close(found.alpha, 1 / 6)
                and close(found.beta, 0.5)
                and close(number / found.factor, 1.0)
                and keeps_shape(node, data)
            ):
                _become(graph, "HardSwish", data, [*found.nodes, *nodes], {})
                return True
        return False


def _of_scaled_clip(node: ir.Node) -> Gate | None:
    """The gate in Clip(x + b, 0, h) * (1/h); a HardSigmoid that is scaled by 1 is none of ours."""
    step = scaled(node)
    found = gate(step[0]) if step is not None else None
    if step is None or found is None or len(found.nodes) == 1 or not close(step[1] / found.factor, 1.0):
        return None
    return found


def _of_steps(clip: ir.Node) -> Gate | None:
    """The gate in Clip(x * a + b, 0, 1), its last node left out."""
    bounds = clip_bounds(clip)
    if bounds is None or bounds[1:] != (0.0, 1.0):
        return None
    add = absorbed(bounds[0], "Add", "Sub")
    moved = offset(add) if add is not None else None
    multiply = absorbed(moved[0], "Mul", "Div") if moved is not None else None
    step = scaled(multiply) if multiply is not None else None
    if add is None or moved is None or multiply is None or step is None:
        return None
    return Gate(step[0], 1.0, step[1], moved[1], (multiply, add))


def _factors(node: ir.Node) -> tuple[float, tuple[ir.Value, ir.Value], list[ir.Node]] | None:
    """`node` as number * a * b with two computed tensors, and the Mul and Div nodes of it in execution order."""
    number, nodes, pending, leaves = 1.0, [], [node.outputs[0]], list[ir.Value]()
    while pending:
        value = pending.pop()
        step = maker(value, "Mul", "Div")
        if step is None or not (step is node or absorbable(value)) or not is_float(step):
            leaves.append(value)
            continue
        part = scaled(step)
        if part is not None:
            number *= part[1]
            pending.append(part[0])
        elif step.op_type == "Mul" and len(leaves) + len(pending) == 0 and None not in step.inputs:
            pending += [v for v in step.inputs if v is not None]
        else:
            leaves.append(value)
            continue
        nodes.append(step)
    if len(leaves) != 2 or static_shape(leaves[0]) != static_shape(leaves[1]):
        return None
    return number, (leaves[0], leaves[1]), nodes[::-1]


def _become(graph: ir.Graph, op_type: str, data: ir.Value, nodes: list[ir.Node], attributes: dict[str, float]) -> None:
    output = nodes[-1].outputs[0]
    node = new_node(
        graph,
        op_type,
        [data],
        attributes=attributes,
        name=output.name or "",
        dtype=output.dtype,
        shape=static_shape(output),
        origins=nodes,
    )
    replace(graph, nodes, [node], node.outputs[0])
