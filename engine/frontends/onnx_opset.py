"""Rewrites the operators of older ONNX opsets into those of one canonical opset, with the same results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.provenance import label
from engine.graph.query import Array, add_constant, attribute, constant, new_node, replace

CANONICAL_OPSET = 18
"""The opset that `upgrade` writes; models of this opset or a newer one stay as they are."""

OLDEST_OPSET = 7
"""Before opset 7 arithmetic broadcast by attributes and many operators had other signatures."""

_IR_VERSION = 8  # the file format that came with opset 18, per the version table of the ONNX specification


class _Scope:
    """What the upgraders share while they work on one model: its opset, its names, and the constants they added."""

    def __init__(self, model: ir.Model, version: int) -> None:
        self.version = version
        self._graph = model.graph
        self._taken: set[str | None] = set()
        for graph in (model.graph, *model.graph.subgraphs()):
            self._taken.update(graph.initializers)
            self._taken.update(value.name for value in graph.inputs)
            self._taken.update(value.name for node in graph for value in node.outputs)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def name(self, base: str) -> str:
        """`base`, numbered where any graph of the model has that name: an inner name may not hide an outer one."""
        name, count = base, 1
        while name in self._taken:
            name, count = f"{base}_{count}", count + 1
        self._taken.add(name)
        return name

    def constant(self, name: str, array: Array) -> ir.Value:
        """An initializer of the outermost graph, shared by all who ask for the same content.

        A model repeats a few axes and pads many times over; one constant each keeps large models small and quick.
        """
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = add_constant(self._graph, self.name(name), array)
        return self._constants[key]

    def integers(self, name: str, values: Sequence[int]) -> ir.Value:
        """`values` as a 1-D int64 constant."""
        return self.constant(name, np.asarray(values, dtype=np.int64).reshape(-1))

    def number(self, name: str, value: float, like: ir.Value) -> ir.Value:
        """`value` as a scalar of the element type of `like`, float32 where that is not known."""
        return self.constant(name, np.array(value, dtype=(like.dtype or ir.DataType.FLOAT).numpy()))


Upgrader = Callable[[ir.Node, _Scope], None]


def upgrade(model: ir.Model) -> None:
    """Rewrite `model`, its subgraphs included, in place from the standard opset 7..17 to `CANONICAL_OPSET`.

    Models of a newer opset stay untouched. Constants are expected as initializers; known shapes lead to simpler
    graphs and are not needed otherwise. Names of results stay, and added nodes inherit the provenance of the node
    they stand for. The functions of the model are expected to be inlined.

    Raises ModelError for an opset below `OLDEST_OPSET`, for a use of an operator that has no equivalent (Scan of
    opset 8, BatchNormalization that trains, ...), and for nodes that lack what their operator requires. The model is
    then half rewritten and of no further use.
    """
    version = _standard_opset(model)
    for function in model.functions.values():
        if function.opset_imports.get("", CANONICAL_OPSET) < CANONICAL_OPSET:
            raise ModelError(
                f"the function {function.name!r} is written in opset {function.opset_imports['']}",
                where=function.name,
                hint="inline the functions of the model first",
            )
    if version < CANONICAL_OPSET:
        scope = _Scope(model, version)
        for graph in (model.graph, *model.graph.subgraphs()):
            for node in tuple(graph):
                until, upgrader = UPGRADERS.get(node.op_type, (0, None))
                if upgrader is not None and node.domain == "" and version < until and node.outputs:
                    upgrader(node, scope)
        version = CANONICAL_OPSET
        model.ir_version = max(model.ir_version, _IR_VERSION)
    model.opset_imports[""] = version


def _standard_opset(model: ir.Model) -> int:
    """The version of the standard domain, whose longer spelling is removed from the imports."""
    imports = model.opset_imports
    spelled = imports.pop("ai.onnx", None)
    version = imports.get("", spelled)
    if version is None:
        # Files older than the notion of opsets mean version 1; a model of other domains' operators alone needs none.
        standard = any(node.domain == "" for node in model.graph.all_nodes())
        version = 1 if standard else CANONICAL_OPSET
    if version < OLDEST_OPSET:
        raise ModelError(
            f"the model is written in ONNX opset {version}; opset {OLDEST_OPSET} is the oldest that is understood",
            where=model.graph.name or "",
            hint="export it again with opset 12 or newer",
        )
    return version


# Reading and changing nodes


def _fault(node: ir.Node, what: str, hint: str = "") -> ModelError:
    return ModelError(
        f"{node.op_type} cannot be brought to opset {CANONICAL_OPSET}: {what}", where=label(node), hint=hint
    )


def _first(node: ir.Node) -> ir.Value:
    value = _input(node, 0)
    if value is None:
        raise _fault(node, "it has no input")
    return value


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Give `node` the `inputs`, without the absent ones at the end."""
    count = max(i + 1 for i, value in enumerate(inputs) if value is not None)
    node.resize_inputs(count)
    for index in range(count):
        node.replace_input_with(index, inputs[index])


def _set(node: ir.Node, **attributes: int | str | Sequence[int]) -> None:
    for name, value in attributes.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)


def _pop_list(node: ir.Node, name: str, kind: type = int) -> list[Any] | None:
    """Remove an attribute and return its numbers, a lone one as a list; None where the node does not have it."""
    attr = node.attributes.pop(name, None)
    if attr is None:
        return None
    items = list(attr.value) if isinstance(attr.value, (list, tuple)) else [attr.value]
    if not all(isinstance(item, (int, kind)) for item in items):
        raise _fault(node, f"its attribute {name!r} is of the wrong type")
    return items


def _pop(node: ir.Node, name: str, kind: type, default: Any = None) -> Any:
    """Remove an attribute and return its number, or `default` where the node does not have it."""
    items = _pop_list(node, name, kind)
    if items is not None and len(items) != 1:
        raise _fault(node, f"its attribute {name!r} is not one number")
    return default if items is None else items[0]


def _required(node: ir.Node, name: str, kind: type = int) -> list[Any]:
    value = _pop_list(node, name, kind)
    if value is None:
        raise _fault(node, f"it lacks the attribute {name!r}")
    return value


def _drop_outputs(node: ir.Node, why: str) -> None:
    """Leave `node` its first output alone; the others must be unread."""
    for value in node.outputs[1:]:
        if value.uses() or value.is_graph_output():
            raise _fault(node, f"its output {value.name!r} is used, {why}", "export the model for inference")
    node.resize_outputs(1)


def _node(
    like: ir.Node,
    scope: _Scope,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shape: ir.Shape | None,
    **attributes: Any,
) -> ir.Node:
    """A node that computes a step of `like` in its element type, not yet in the graph."""
    graph = like.graph
    assert isinstance(graph, ir.Graph)
    name = scope.name(f"{like.outputs[0].name}/{op_type}")
    dtype = _first(like).dtype or like.outputs[0].dtype
    node = new_node(graph, op_type, inputs, attributes=attributes, name=name, dtype=dtype, shape=(), origins=[like])
    node.outputs[0].shape = shape if dtype is not None else None  # a shape without a type cannot be written to a file
    return node


def _before(
    node: ir.Node,
    scope: _Scope,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shape: ir.Shape | None,
    **attributes: Any,
) -> ir.Value:
    """The result of a new node that runs just before `node`."""
    step = _node(node, scope, op_type, inputs, shape, **attributes)
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, step)
    return step.outputs[0]


# One function an operator, or a family of them


def _axes_to_input(node: ir.Node, scope: _Scope) -> None:
    """Squeeze, Unsqueeze and the reductions: the attribute `axes` became the second input."""
    axes = _pop_list(node, "axes")
    if axes is None and node.op_type == "Unsqueeze" and _input(node, 1) is None:
        raise _fault(node, "it lacks the attribute 'axes'")
    # An empty list means every axis, as an absent one does; only Unsqueeze takes it literally.
    if axes or (axes is not None and node.op_type == "Unsqueeze"):
        _set_inputs(node, [_first(node), scope.integers("axes", axes)])


def _batch_normalization(node: ir.Node, scope: _Scope) -> None:
    """The mode of running statistics became an attribute in 14, off by default; `spatial` was dropped in 9."""
    spatial = _pop(node, "spatial", int, 1)
    shape = _first(node).shape
    if spatial == 0 and (shape is None or len(shape) != 2):
        raise _fault(node, "spatial=0 keeps statistics for every position, which later opsets cannot express")
    _drop_outputs(node, "which only training computes")


def _clip(node: ir.Node, scope: _Scope) -> None:
    """Bounds became inputs in 11. Those that no number of the element type exceeds are left out."""
    x = _first(node)
    inputs: list[ir.Value | None] = [x]
    for name in ("min", "max"):
        value = _pop(node, name, float)
        if value is not None:
            # The defaults of opset 6 are the largest finite float32, negative and positive.
            outward = -value if name == "min" else value
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.array(value, dtype=(x.dtype or ir.DataType.FLOAT).numpy()))
            if outward >= np.finfo(np.float32).max or (outward > 0 and not finite):
                value = None
        inputs.append(None if value is None else scope.number(name, value, x))
    _set_inputs(node, inputs)


def _dropout(node: ir.Node, scope: _Scope) -> None:
    """Before 12 inference was a matter of the runtime, and then the data passes unchanged."""
    _drop_outputs(node, "whose meaning at inference was not defined before opset 12")
    node.op_type = "Identity"
    node.attributes.clear()


def _pad(node: ir.Node, scope: _Scope) -> None:
    """Attributes `pads` and `value` became inputs in 11."""
    x = _first(node)
    pads = scope.integers("pads", _required(node, "pads"))
    value = _pop(node, "value", float, 0.0)
    fill = scope.number("value", value, x) if value and attribute(node, "mode", "constant") == "constant" else None
    _set_inputs(node, [x, pads, fill])


def _upsample(node: ir.Node, scope: _Scope) -> None:
    """Upsample repeats or interpolates from the corner; Resize took its place in 10."""
    scales = _input(node, 1)
    if scales is None:
        scales = scope.constant("scales", np.array(_required(node, "scales", float), dtype=np.float32))
    _from_corner(node, scope, scales)


def _resize(node: ir.Node, scope: _Scope) -> None:
    """From 11 on the coordinates are chosen by attributes; 13 let inputs be absent that were empty before."""
    if scope.version < 11:
        scales = _input(node, 1)
        if scales is None:
            raise _fault(node, "it lacks the input 'scales'")
        _from_corner(node, scope, scales)
        return
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    present: list[ir.Value | None] = [_first(node)]
    for index in (1, 2, 3):
        value = _input(node, index)
        array = constant(value)
        unread = index == 1 and coordinates != "tf_crop_and_resize"
        present.append(None if unread or (array is not None and array.size == 0) else value)
    _set_inputs(node, present)
    if coordinates == "tf_half_pixel_for_nn":
        # That mode, gone since 13, reads at (x + 0.5) / scale, half a pixel beyond half_pixel: rounding down there is
        # rounding to the nearest here, and the nearest with ties down there is rounding up here.
        nearest = attribute(node, "nearest_mode", "round_prefer_floor")
        same = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}.get(nearest)
        if same is None or attribute(node, "mode", "nearest") != "nearest":
            raise _fault(
                node, "coordinates 'tf_half_pixel_for_nn' are understood for mode 'nearest' rounding down only"
            )
        _set(node, coordinate_transformation_mode="half_pixel", nearest_mode=same)


def _from_corner(node: ir.Node, scope: _Scope, scales: ir.Value) -> None:
    """Make `node` the Resize that equals Upsample and Resize before 11.

    They read at x / scale. In mode nearest ONNX Runtime rounds that down along axes that grow and up along axes that
    shrink, where the specification is silent; a node that does both becomes two.
    """
    x, factors = _first(node), constant(scales)
    attributes: dict[str, str] = {"coordinate_transformation_mode": "asymmetric"}
    if attribute(node, "mode", "nearest") == "nearest":
        attributes["nearest_mode"] = "floor"
        if factors is not None and factors.min(initial=1.0) < 1:
            if factors.max(initial=1.0) > 1:
                grow = scope.constant("scales", np.maximum(factors, np.float32(1)))
                scales = scope.constant("scales", np.minimum(factors, np.float32(1)))
                x = _before(node, scope, "Resize", [x, None, grow], None, mode="nearest", **attributes)
                _infer_scaled(x, _first(node), np.maximum(factors, 1))
            attributes["nearest_mode"] = "ceil"
    node.op_type = "Resize"
    _set_inputs(node, [x, None, scales])
    _set(node, **attributes)


def _infer_scaled(value: ir.Value, source: ir.Value, factors: Array) -> None:
    """Give the resized `value` its shape, floor(size * factor), where the shape of `source` is known."""
    if source.shape is not None and source.shape.is_static() and len(source.shape) == factors.size:
        sizes = np.floor(np.array(source.shape.numpy(), dtype=np.float32) * factors.reshape(-1))
        value.shape = ir.Shape([int(size) for size in sizes])


def _roi_align(node: ir.Node, scope: _Scope) -> None:
    """16 moved the default by half a pixel."""
    _set(node, coordinate_transformation_mode="output_half_pixel")


def _scan(node: ir.Node, scope: _Scope) -> None:
    raise _fault(node, "Scan of opset 8 loops over a batch as well", "export the model with opset 9 or newer")


def _scatter(node: ir.Node, scope: _Scope) -> None:
    node.op_type = "ScatterElements"


def _slice(node: ir.Node, scope: _Scope) -> None:
    """Attributes became inputs in 10."""
    starts, ends = _required(node, "starts"), _required(node, "ends")
    axes = _pop_list(node, "axes")
    if axes is None:
        axes = list(range(len(starts)))
    named = (("starts", starts), ("ends", ends), ("axes", axes))
    _set_inputs(node, [_first(node), *(scope.integers(name, values) for name, values in named)])


def _softmax(node: ir.Node, scope: _Scope) -> None:
    """Softmax, LogSoftmax, Hardmax: before 13 all axes from `axis` (default 1) on counted as one."""
    x, axis = _first(node), _pop(node, "axis", int, 1)
    if x.shape is not None:
        rank = len(x.shape)
        axis += rank if axis < 0 else 0
        wide = [i for i in range(axis, rank) if x.shape[i] != 1]
        if axis < rank and len(wide) <= 1:
            _set(node, axis=wide[0] if wide else rank - 1)
            return
    shape, known = x.shape, x.shape is not None and x.shape.is_static() and 0 not in x.shape.dims
    flat_shape = ir.Shape([None, None])
    if shape is not None and known:
        flat_shape = ir.Shape([int(np.prod(shape.numpy()[:axis])), int(np.prod(shape.numpy()[axis:]))])
        restored = scope.integers("shape", shape.numpy())
    else:
        restored = _before(node, scope, "Shape", [x], ir.Shape([None if shape is None else len(shape)]))
        restored.dtype = ir.DataType.INT64
    flat = _before(node, scope, "Flatten", [x], flat_shape, axis=axis)
    step = _node(node, scope, node.op_type, [flat], flat_shape, axis=-1)
    result = _node(node, scope, "Reshape", [step.outputs[0], restored], shape)
    step.name, node.name = node.name, None
    assert isinstance(node.graph, ir.Graph)
    replace(node.graph, [node], [step, result], result.outputs[0])
    if result.outputs[0].dtype is None:
        result.outputs[0].type = None  # rather than a tensor of no type, which cannot be written to a file


def _split(node: ir.Node, scope: _Scope) -> None:
    """The attribute `split` became an input in 13; 18 wants the number of parts where that is absent."""
    sizes = _pop_list(node, "split")
    if sizes:
        _set_inputs(node, [_first(node), scope.integers("split", sizes)])
    elif _input(node, 1) is None:
        _set(node, num_outputs=len(node.outputs))


def _top_k(node: ir.Node, scope: _Scope) -> None:
    """The attribute `k` became an input in 10."""
    _set_inputs(node, [_first(node), scope.integers("k", _required(node, "k"))])


# Operators that early exporters used under the standard domain and that ONNX Runtime runs up to opset 9


def _finish(node: ir.Node, op_type: str, *inputs: ir.Value) -> None:
    """Let `node` be the last step of what it stood for."""
    node.op_type = op_type
    node.attributes.clear()
    _set_inputs(node, inputs)


def _affine(node: ir.Node, scope: _Scope) -> None:
    """Affine: alpha * x + beta. ImageScaler: scale * x + bias, a bias a channel. Scale: scale * x."""
    x = _first(node)
    factor = float(_pop(node, "alpha" if node.op_type == "Affine" else "scale", float, 1.0))
    offset = _pop_list(node, "bias" if node.op_type == "ImageScaler" else "beta", float)
    if offset is None:
        _finish(node, "Mul", x, scope.number("scale", factor, x))
        return
    scaled = x if factor == 1 else _before(node, scope, "Mul", [x, scope.number("scale", factor, x)], x.shape)
    bias = np.array(offset, dtype=(x.dtype or ir.DataType.FLOAT).numpy())
    _finish(node, "Add", scaled, scope.constant("bias", bias.reshape(-1, 1, 1) if bias.size > 1 else bias.reshape(())))


def _scaled_activation(node: ir.Node, scope: _Scope) -> None:
    """ParametricSoftplus: alpha * softplus(beta * x). ScaledTanh: alpha * tanh(beta * x)."""
    x = inner = _first(node)
    # Without the attributes ONNX Runtime refuses ParametricSoftplus and ScaledTanh alike.
    alpha, beta = float(_required(node, "alpha", float)[0]), float(_required(node, "beta", float)[0])
    if beta != 1:
        inner = _before(node, scope, "Mul", [x, scope.number("scale", beta, x)], x.shape)
    activation = "Tanh" if node.op_type == "ScaledTanh" else "Softplus"
    _finish(node, "Mul", _before(node, scope, activation, [inner], x.shape), scope.number("scale", alpha, x))


def _crop(node: ir.Node, scope: _Scope) -> None:
    """Crop N,C,H,W by the border left, top, right, bottom, or to the size `scale` (height, width) from left, top."""
    border, size = _required(node, "border"), _pop_list(node, "scale")
    if len(border) != 4 or (size and len(size) != 2):
        raise _fault(node, "its border must be four numbers and its scale two")
    left, top, right, bottom = border
    whole = np.iinfo(np.int64).max
    ends = [top + size[0], left + size[1]] if size else [-bottom or whole, -right or whole]
    bounds = (("starts", [top, left]), ("ends", ends), ("axes", [2, 3]))
    _finish(node, "Slice", _first(node), *(scope.integers(name, values) for name, values in bounds))


def _mean_variance_normalization(node: ir.Node, scope: _Scope) -> None:
    """Until 8 on N,C,H,W only, over a channel or over everything, with the division by the deviation optional."""
    x = _first(node)
    axes = [0, 1, 2, 3] if _pop(node, "across_channels", int, 0) else [0, 2, 3]
    if _pop(node, "normalize_variance", int, 1):
        _set(node, axes=axes)
        return
    _finish(node, "Sub", x, _before(node, scope, "ReduceMean", [x, scope.integers("axes", axes)], None))


def _dynamic_slice(node: ir.Node, scope: _Scope) -> None:
    node.op_type = "Slice"


UPGRADERS: dict[str, tuple[int, Upgrader]] = {
    "BatchNormalization": (14, _batch_normalization),
    "Clip": (11, _clip),
    "Dropout": (12, _dropout),
    "MeanVarianceNormalization": (9, _mean_variance_normalization),
    "Pad": (11, _pad),
    "Resize": (18, _resize),
    "RoiAlign": (16, _roi_align),
    "Scan": (9, _scan),
    "Scatter": (18, _scatter),
    "Slice": (10, _slice),
    "Split": (18, _split),
    "TopK": (10, _top_k),
    "Upsample": (18, _upsample),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), (13, _softmax)),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum"), (13, _axes_to_input)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"), (18, _axes_to_input)),
    **dict.fromkeys(("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"), (18, _axes_to_input)),
    **dict.fromkeys(("Affine", "ImageScaler", "Scale"), (18, _affine)),
    **dict.fromkeys(("ParametricSoftplus", "ScaledTanh"), (18, _scaled_activation)),
    "Crop": (18, _crop),
    "DynamicSlice": (18, _dynamic_slice),
}
"""Operator type -> (the first opset from which it needs no change, the function that rewrites an older node)."""
