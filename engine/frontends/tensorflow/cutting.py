"""Decides where a TensorFlow graph begins and ends, and how large its inputs are."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from engine.errors import ConfigError, ModelError, nearest
from engine.frontends.tensorflow.constants import dimensions, dtype_name, graph_type
from engine.frontends.tensorflow.nodes import Body, Node, Reference, parse_reference, tensor_name
from engine.graph import cutting
from engine.graph.query import static_shape
from engine.graph.shapes import LARGEST_TENSOR

log = logging.getLogger("engine")

Shape = list[int | None]
_BOOL, _UINT8 = 10, 4
_SINGLE = {"Const", "Placeholder", "PlaceholderV2"}
_NO_OUTPUTS = {
    "NoOp", "Assert", "Const", "Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "Save", "SaveV2", "Print",
    "PrintV2", "ScalarSummary", "HistogramSummary", "ImageSummary", "MergeSummary", "WriteFile", "Assign", "Shape",
    "NextIteration", "ControlTrigger", "TensorArrayCloseV3",
}  # fmt: skip
_LEFT_BEHIND = {"Exit", "Enter", "Merge", "Switch", "LoopCond"}
# What reads a number that may stand for a whole tensor.
_BY_ELEMENT = {
    "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "Greater", "GreaterEqual", "Less",
    "LessEqual", "Cast", "Neg", "Floor", "Identity", "Pow", "Sqrt", "Rsqrt",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Feed:
    """An input of the model: the tensor it stands for, its DataType and its shape as far as it is known."""

    reference: Reference
    dtype: int
    shape: Shape | None
    chosen: bool

    @property
    def name(self) -> str:
        """What the input is called."""
        return tensor_name(self.reference)


def find(argument: str, name: object, body: Body) -> Reference:
    """The tensor that a person means by an operation's name, or by 'operation:index'. Raises ConfigError."""
    if isinstance(name, str):
        if name in body.nodes:
            return name, 0
        reference = parse_reference(name)
        if reference[0] in body.nodes:
            return reference
    raise ConfigError(f"the model has no operation {name!r}", where=argument, hint=nearest(str(name), body.nodes))


def find_all(argument: str, names: Sequence[str], body: Body) -> list[Reference]:
    """The tensors that a list of names means. Raises ConfigError for an empty list, doubles and unknown names."""
    if isinstance(names, str):
        raise ConfigError(f"expected a list of names, got {names!r}", where=argument)
    if not names:
        raise ConfigError("is an empty list", where=argument, hint="name at least one operation, or leave it out")
    found = [find(argument, name, body) for name in names]
    doubles = sorted({tensor_name(reference) for reference in found if found.count(reference) > 1})
    if doubles:
        raise ConfigError(f"names {doubles} twice", where=argument)
    return found


def choose_outputs(body: Body, feeds: Sequence[Reference], where: str) -> list[Reference]:
    """What nothing reads among all that depends on an input. Raises ModelError where there is nothing."""
    readers = _readers(body)
    starts = [name for name, _ in feeds] + [node.name for node in body.nodes.values() if _is_input(node, body)]
    reached = _spread(starts, lambda name: readers[name])
    ends = [
        (name, 0)
        for name, node in body.nodes.items()
        if name in reached
        and node.op not in _NO_OUTPUTS
        and not any(body.nodes[r].op != "Assert" for r in readers[name])
    ]
    ends = [end for end in ends if end[0] not in starts]
    # Loops leave behind what nobody asked for.
    ends = [end for end in ends if body.nodes[end[0]].op not in _LEFT_BEHIND] or ends
    if not ends:
        raise ModelError("no output depends on an input", where=where, hint="name them with `inputs` and `outputs`")
    return ends


def choose_feeds(
    body: Body, chosen: Sequence[Reference] | None, outputs: Sequence[Reference], where: str
) -> list[Feed]:
    """The inputs: the `chosen` ones in their order, then the placeholders that the outputs need beside them."""
    given = list(chosen or ())
    for name, _ in given:
        if body.nodes[name].op == "Const":
            raise ConfigError(f"{name!r} is a constant of the model, not an input", where="inputs")
    stops = {name for name, _ in given}
    needed = _spread(
        [name for name, _ in outputs],
        lambda name: [] if name in stops else [source for source, _ in body.nodes[name].inputs],
    )
    own = [
        (node.name, 0)
        for node in body.nodes.values()
        if node.name in needed and node.name not in stops and _is_input(node, body)
    ]
    readers = _readers(body)
    return [_feed(body, reference, reference in given, readers, where) for reference in [*given, *own]]


def fix_sizes(
    feeds: Sequence[Feed], names: Sequence[str] | None, sizes: Sequence[Sequence[int]] | None, body: Body
) -> list[tuple[int, ...]]:
    """The shape of each input. Raises ConfigError where sizes and inputs do not fit, or a dimension stays unknown.

    The first dimension, the batch, is 1 where nothing else is said; a number that only single values are computed
    with has no dimensions.
    """
    readers = _readers(body)
    targets = [feed.name for feed in feeds] if names is None else list(names)
    values = []
    for feed in feeds:
        shape = feed.shape
        if shape is None and not (sizes is not None and feed.name in targets) and _reads_singly(feed, readers, body):
            shape = []
        if shape and shape[0] is None:
            shape = [1, *shape[1:]]
        values.append(ir.val(feed.name, shape=None if shape is None else ir.Shape(shape)))
    graph = ir.Graph(values, [], nodes=[])
    cutting.fix_sizes(graph, targets if names is not None else None, sizes)
    found = [static_shape(value) for value in values]
    for feed, dims in zip(feeds, found, strict=True):
        if math.prod(dims) > LARGEST_TENSOR:
            raise ConfigError(f"{list(dims)} is too large", where=f"input {feed.name!r}")
    return found


def is_switch(feed: Feed) -> bool:
    """Whether the input is one truth value that nobody asked for, as those that turn training on."""
    return feed.dtype == _BOOL and not feed.chosen and not feed.shape


def _is_input(node: Node, body: Body) -> bool:
    if node.op in ("Placeholder", "PlaceholderV2"):
        return True
    if node.op != "PlaceholderWithDefault" or not node.inputs:
        return False
    # One number by default is a setting; a whole tensor stands in for data.
    default = body.nodes[node.inputs[0][0]]
    if default.op != "Const" or not default.has("value"):
        return True
    elements = 1
    for dim in default.proto.attr["value"].tensor.tensor_shape.dim:
        elements *= max(dim.size, 0)
    return elements != 1


def _feed(body: Body, reference: Reference, chosen: bool, readers: dict[str, list[str]], where: str) -> Feed:
    name, index = reference
    node = body.nodes[name]
    placeholder = _is_input(node, body)
    dtype = node.dtype("dtype", "DstT", "Tout", "T", "out_type")
    if dtype == _UINT8 and placeholder and readers[name] and all(body.nodes[r].op == "Cast" for r in readers[name]):
        dtype = 1  # a picture, whose bytes the model itself makes real numbers
    if graph_type(dtype) is None:
        raise ModelError(
            f"input {name!r} holds {dtype_name(dtype)} values", where=where, hint="cut it off with `inputs`"
        )
    shape = node.shape("shape") if placeholder else None
    if node.has("_output_shapes") and shape is None:
        listed = node.proto.attr["_output_shapes"].list.shape
        shape = dimensions(listed[index]) if index < len(listed) else None
    return Feed(reference, dtype, shape, chosen)


def _reads_singly(feed: Feed, readers: dict[str, list[str]], body: Body) -> bool:
    found = readers[feed.reference[0]]
    return bool(found) and all(body.nodes[name].op in _BY_ELEMENT for name in found)


def _readers(body: Body) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = defaultdict(list)
    for node in body.nodes.values():
        for source, _ in node.inputs:
            readers[source].append(node.name)
    return readers


def _spread(starts: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(step(name))
    return reached
