"""Rewrites the operators of older ONNX opsets into those of one canonical opset, with the same results."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.onnx_early_operators import (
    affine,
    crop,
    dynamic_slice,
    mean_variance_normalization,
    scaled_activation,
)
from engine.frontends.onnx_node_editing import (
    CANONICAL_OPSET,
    Scope,
    Upgrader,
    drop_outputs,
    fault,
    first_input,
    input_at,
    insert_before,
    pop_list,
    pop_number,
    required_list,
    set_attributes,
    set_inputs,
    step_node,
)
from engine.graph.query import Array, attribute, constant, replace

OLDEST_OPSET = 7
"""Before opset 7 arithmetic broadcast by attributes and many operators had other signatures."""

_IR_VERSION = 8  # the file format that came with opset 18, per the version table of the ONNX specification


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
        scope = Scope(model, version)
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


# One function an operator, or a family of them


def _axes_to_input(node: ir.Node, scope: Scope) -> None:
    """Squeeze, Unsqueeze and the reductions: the attribute `axes` became the second input."""
    axes = pop_list(node, "axes")
    if axes is None and node.op_type == "Unsqueeze" and input_at(node, 1) is None:
        raise fault(node, "it lacks the attribute 'axes'")
    # An empty list means every axis, as an absent one does; only Unsqueeze takes it literally.
    if axes or (axes is not None and node.op_type == "Unsqueeze"):
        set_inputs(node, [first_input(node), scope.integers("axes", axes)])


def _batch_normalization(node: ir.Node, scope: Scope) -> None:
    """The mode of running statistics became an attribute in 14, off by default; `spatial` was dropped in 9."""
    spatial = pop_number(node, "spatial", int, 1)
    shape = first_input(node).shape
    if spatial == 0 and (shape is None or len(shape) != 2):
        raise fault(node, "spatial=0 keeps statistics for every position, which later opsets cannot express")
    drop_outputs(node, "which only training computes")


def _clip(node: ir.Node, scope: Scope) -> None:
    """Bounds became inputs in 11. Those that no number of the element type exceeds are left out."""
    x = first_input(node)
    inputs: list[ir.Value | None] = [x]
    for name in ("min", "max"):
        value = pop_number(node, name, float)
        if value is not None:
            # The defaults of opset 6 are the largest finite float32, negative and positive.
            outward = -value if name == "min" else value
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.array(value, dtype=(x.dtype or ir.DataType.FLOAT).numpy()))
            if outward >= np.finfo(np.float32).max or (outward > 0 and not finite):
                value = None
        inputs.append(None if value is None else scope.number(name, value, x))
    set_inputs(node, inputs)


def _dropout(node: ir.Node, scope: Scope) -> None:
    """Before 12 inference was a matter of the runtime, and then the data passes unchanged."""
    drop_outputs(node, "whose meaning at inference was not defined before opset 12")
    node.op_type = "Identity"
    node.attributes.clear()


def _pad(node: ir.Node, scope: Scope) -> None:
    """Attributes `pads` and `value` became inputs in 11."""
    x = first_input(node)
    pads = scope.integers("pads", required_list(node, "pads"))
    value = pop_number(node, "value", float, 0.0)
    fill = scope.number("value", value, x) if value and attribute(node, "mode", "constant") == "constant" else None
    set_inputs(node, [x, pads, fill])


def _upsample(node: ir.Node, scope: Scope) -> None:
    """Upsample repeats or interpolates from the corner; Resize took its place in 10."""
    scales = input_at(node, 1)
    if scales is None:
        scales = scope.constant("scales", np.array(required_list(node, "scales", float), dtype=np.float32))
    _from_corner(node, scope, scales)


def _resize(node: ir.Node, scope: Scope) -> None:
    """From 11 on the coordinates are chosen by attributes; 13 let inputs be absent that were empty before."""
    if scope.version < 11:
        scales = input_at(node, 1)
        if scales is None:
            raise fault(node, "it lacks the input 'scales'")
        _from_corner(node, scope, scales)
        return
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    present: list[ir.Value | None] = [first_input(node)]
    for index in (1, 2, 3):
        value = input_at(node, index)
        array = constant(value)
        unread = index == 1 and coordinates != "tf_crop_and_resize"
        present.append(None if unread or (array is not None and array.size == 0) else value)
    set_inputs(node, present)
    if coordinates == "tf_half_pixel_for_nn":
        # That mode, gone since 13, reads at (x + 0.5) / scale, half a pixel beyond half_pixel: rounding down there is
        # rounding to the nearest here, and the nearest with ties down there is rounding up here.
        nearest = attribute(node, "nearest_mode", "round_prefer_floor")
        same = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}.get(nearest)
        if same is None or attribute(node, "mode", "nearest") != "nearest":
            raise fault(node, "coordinates 'tf_half_pixel_for_nn' are understood for mode 'nearest' rounding down only")
        set_attributes(node, coordinate_transformation_mode="half_pixel", nearest_mode=same)


def _from_corner(node: ir.Node, scope: Scope, scales: ir.Value) -> None:
    """Make `node` the Resize that equals Upsample and Resize before 11.

    They read at x / scale. In mode nearest ONNX Runtime rounds that down along axes that grow and up along axes that
    shrink, where the specification is silent; a node that does both becomes two.
    """
    x, factors = first_input(node), constant(scales)
    attributes: dict[str, str] = {"coordinate_transformation_mode": "asymmetric"}
    if attribute(node, "mode", "nearest") == "nearest":
        attributes["nearest_mode"] = "floor"
        if factors is not None and factors.min(initial=1.0) < 1:
            if factors.max(initial=1.0) > 1:
                grow = scope.constant("scales", np.maximum(factors, np.float32(1)))
                scales = scope.constant("scales", np.minimum(factors, np.float32(1)))
                x = insert_before(node, scope, "Resize", [x, None, grow], None, mode="nearest", **attributes)
                _infer_scaled(x, first_input(node), np.maximum(factors, 1))
            attributes["nearest_mode"] = "ceil"
    node.op_type = "Resize"
    set_inputs(node, [x, None, scales])
    set_attributes(node, **attributes)


def _infer_scaled(value: ir.Value, source: ir.Value, factors: Array) -> None:
    """Give the resized `value` its shape, floor(size * factor), where the shape of `source` is known."""
    if source.shape is not None and source.shape.is_static() and len(source.shape) == factors.size:
        sizes = np.floor(np.array(source.shape.numpy(), dtype=np.float32) * factors.reshape(-1))
        value.shape = ir.Shape([int(size) for size in sizes])


def _roi_align(node: ir.Node, scope: Scope) -> None:
    """16 moved the default by half a pixel."""
    set_attributes(node, coordinate_transformation_mode="output_half_pixel")


def _scan(node: ir.Node, scope: Scope) -> None:
    raise fault(node, "Scan of opset 8 loops over a batch as well", "export the model with opset 9 or newer")


def _scatter(node: ir.Node, scope: Scope) -> None:
    node.op_type = "ScatterElements"


def _slice(node: ir.Node, scope: Scope) -> None:
    """Attributes became inputs in 10."""
    starts, ends = required_list(node, "starts"), required_list(node, "ends")
    axes = pop_list(node, "axes")
    if axes is None:
        axes = list(range(len(starts)))
    named = (("starts", starts), ("ends", ends), ("axes", axes))
    set_inputs(node, [first_input(node), *(scope.integers(name, values) for name, values in named)])


def _softmax(node: ir.Node, scope: Scope) -> None:
    """Softmax, LogSoftmax, Hardmax: before 13 all axes from `axis` (default 1) on counted as one."""
    x, axis = first_input(node), pop_number(node, "axis", int, 1)
    if x.shape is not None:
        rank = len(x.shape)
        axis += rank if axis < 0 else 0
        wide = [i for i in range(axis, rank) if x.shape[i] != 1]
        if axis < rank and len(wide) <= 1:
            set_attributes(node, axis=wide[0] if wide else rank - 1)
            return
    shape, known = x.shape, x.shape is not None and x.shape.is_static() and 0 not in x.shape.dims
    flat_shape = ir.Shape([None, None])
    if shape is not None and known:
        flat_shape = ir.Shape([int(np.prod(shape.numpy()[:axis])), int(np.prod(shape.numpy()[axis:]))])
        restored = scope.integers("shape", shape.numpy())
    else:
        restored = insert_before(node, scope, "Shape", [x], ir.Shape([None if shape is None else len(shape)]))
        restored.dtype = ir.DataType.INT64
    flat = insert_before(node, scope, "Flatten", [x], flat_shape, axis=axis)
    step = step_node(node, scope, node.op_type, [flat], flat_shape, axis=-1)
    result = step_node(node, scope, "Reshape", [step.outputs[0], restored], shape)
    step.name, node.name = node.name, None
    assert isinstance(node.graph, ir.Graph)
    replace(node.graph, [node], [step, result], result.outputs[0])
    if result.outputs[0].dtype is None:
        result.outputs[0].type = None  # rather than a tensor of no type, which cannot be written to a file


def _split(node: ir.Node, scope: Scope) -> None:
    """The attribute `split` became an input in 13; 18 wants the number of parts where that is absent."""
    sizes = pop_list(node, "split")
    if sizes:
        set_inputs(node, [first_input(node), scope.integers("split", sizes)])
    elif input_at(node, 1) is None:
        set_attributes(node, num_outputs=len(node.outputs))


def _top_k(node: ir.Node, scope: Scope) -> None:
    """The attribute `k` became an input in 10."""
    set_inputs(node, [first_input(node), scope.integers("k", required_list(node, "k"))])


UPGRADERS: dict[str, tuple[int, Upgrader]] = {
    "BatchNormalization": (14, _batch_normalization),
    "Clip": (11, _clip),
    "Dropout": (12, _dropout),
    "MeanVarianceNormalization": (9, mean_variance_normalization),
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
    **dict.fromkeys(("Affine", "ImageScaler", "Scale"), (18, affine)),
    **dict.fromkeys(("ParametricSoftplus", "ScaledTanh"), (18, scaled_activation)),
    "Crop": (18, crop),
    "DynamicSlice": (18, dynamic_slice),
}
"""Operator type -> (the first opset from which it needs no change, the function that rewrites an older node)."""
