"""Loading an ONNX model: every opset and element type, cut where a person says, static, and computing the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from engine.errors import Cancelled, EngineError, FileError, ModelError, UnsupportedOperator
from engine.frontends.onnx import load
from engine.frontends.onnx_node_editing import CANONICAL_OPSET
from engine.graph.execution import run_float
from engine.graph.provenance import sources
from engine.graph.query import static_shape
from engine.ort import newest_opset
from engine.progress import Progress
from tests.engine.frontends.model_files import IMAGE, Array, assert_loads_as, feeds_of, floats, model, run, save, whole

WEIGHTS = {"w": floats(4, 3, 3, 3), "b": floats(4), "k": floats(64, 5), "five": floats(5), "two": np.float32(2)}


def runtime_knows(opset: int) -> bool:
    proto = model({"x": (2,)}, "y = Relu (x)", opset=opset)
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # whatever it raises, it does not run this opset
        return False
    return True


@pytest.mark.parametrize("opset", range(7, newest_opset() + 1))
def test_every_opset_computes_what_onnxruntime_computes(opset: int, tmp_path: Path) -> None:
    if not runtime_knows(opset):
        pytest.skip(f"the installed onnxruntime does not run opset {opset}")
    body = """
        c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)
        r = Relu (c)
        s = Sigmoid (c)
        m = Mul (r, s)
        d = Div (m, two)
        p = MaxPool <kernel_shape = [2, 2], strides = [1, 1], pads = [0, 0, 1, 1]> (d)
        f = Flatten (p)
        g = Gemm (f, k, five)
        y = Softmax (g)
    """
    graph = assert_loads_as(model(IMAGE, body, WEIGHTS, ["y", "r"], opset=opset), tmp_path)
    assert graph.graph.opset_imports[""] == max(opset, CANONICAL_OPSET)
    assert all(sources(node) for node in graph.graph)


@pytest.mark.parametrize("opset", [1, 6, newest_opset() + 1, 0, -1, 1 << 40])
def test_an_opset_out_of_reach_is_named(opset: int, tmp_path: Path) -> None:
    path = save(model(IMAGE, "y = Relu (x)", opset=opset), tmp_path)
    with pytest.raises(ModelError, match=rf"opset {opset}; opsets 7 to {newest_opset()}"):
        load(path)


def test_operators_of_early_exporters_are_rewritten(tmp_path: Path) -> None:
    assert_loads_as(model(IMAGE, "y = Affine <alpha = 2.0, beta = 1.0> (x)", opset=9), tmp_path)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floats_become_float32(kind: int, tmp_path: Path) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    body = "m = MatMul (x, w)\nh = Cast <to = 1> (m)\nr = Relu (h)\ny = Add (r, r)"
    proto = model({"x": (4, 8)}, body, {"w": floats(8, 3).astype(dtype)}, dtype=kind)
    graph = assert_loads_as(proto, tmp_path, tolerance=2e-2)
    assert {v.dtype.name for v in graph.graph.initializers.values() if v.dtype} == {"FLOAT"}
    assert graph.graph.inputs[0].dtype is not None and graph.graph.inputs[0].dtype.name == "FLOAT"


@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (2, 3, 4), (1, 2, 3, 4), (1, 2, 2, 2, 2), (1, 1, 2, 2, 2, 2)])
def test_inputs_of_every_rank(shape: tuple[int, ...], tmp_path: Path) -> None:
    graph = assert_loads_as(model({"x": shape}, "a = Abs (x)\ny = Add (a, x)"), tmp_path)
    assert static_shape(graph.graph.inputs[0]) == shape


def test_several_inputs_of_several_types_keep_their_order(tmp_path: Path) -> None:
    kinds = {"ids": TensorProto.INT32, "mask": TensorProto.BOOL, "row": TensorProto.INT64}
    body = """
        e = Gather (table, ids)
        f = Cast <to = 1> (mask)
        p = Mul (e, f)
        r = Gather (p, row)
        y = Add (r, x)
    """
    inputs = {"row": (1,), "x": (3, 4), "ids": (2, 3), "mask": (2, 3, 1)}
    graph = assert_loads_as(model(inputs, body, {"table": floats(6, 4)}, dtypes=kinds), tmp_path)
    assert [v.name for v in graph.graph.inputs] == ["row", "x", "ids", "mask"]


def test_inputs_that_nothing_reads_are_left_out_unless_named(tmp_path: Path) -> None:
    path = save(model({"x": (1, 2), "unused": ("n", 2)}, "y = Relu (x)"), tmp_path)
    assert [v.name for v in load(path).graph.inputs] == ["x"]
    named = load(path, ["x", "unused"], [[1, 2], [3, 2]])
    assert [v.name for v in named.graph.inputs] == ["x", "unused"]


def test_an_input_that_is_left_out_is_told_unless_a_person_cut_it_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(model({"x": (1, 2), "unused": (1, 2)}, "y = Relu (x)"), tmp_path)
    load(path, outputs=["y"])
    assert not caplog.messages
    load(path)
    assert [text for text in caplog.messages if "left out: unused" in text]


def test_outputs_may_be_inputs_or_constants(tmp_path: Path) -> None:
    # Not with Relu: until 1.26 ONNX Runtime computes it in place, over the input that is an output as well.
    proto = model(
        {"x": (1, 2)}, "y = Concat <axis = 0> (x, x)\nsum = Add (c, c)", {"c": floats(2)}, ["y", "x", "c", "sum"]
    )
    graph = assert_loads_as(proto, tmp_path)
    assert [v.name for v in graph.graph.outputs] == ["y", "x", "c", "sum"]


def test_constants_among_the_inputs_are_constants(tmp_path: Path) -> None:
    inputs = {"x": (1, 3, 8, 8), "w": (4, 3, 3, 3), "b": (4,)}
    path = save(model(inputs, "y = Conv (x, w, b)", {"w": WEIGHTS["w"], "b": WEIGHTS["b"]}), tmp_path)
    assert [v.name for v in load(path).graph.inputs] == ["x"]
    assert [v.name for v in load(path, None, [[1, 3, 8, 8]]).graph.inputs] == ["x"]


def test_nodes_with_the_same_name_or_none_are_told_apart(tmp_path: Path) -> None:
    proto = model(IMAGE, "a = Relu (x)\nb = Sigmoid (a)\nc = Tanh (b)\ny = Add (c, a)")
    ordinary = onnx.ModelProto.FromString(proto.SerializeToString())
    for node, name in zip(proto.graph.node, ["same", "same", "", ""], strict=True):
        node.name = name
    graph = load(save(proto, tmp_path))
    feeds = feeds_of(graph)
    np.testing.assert_array_equal(run_float(graph, feeds)[0], run(ordinary, feeds)[0])
    assert [sources(node) for node in graph.graph] == [("same",), ("same",), ("Tanh:c",), ("Add:y",)]


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    proto = model(IMAGE, "a = Relu (x)\ny = Add (a, x)")
    ordered = onnx.ModelProto.FromString(proto.SerializeToString())
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    graph = load(save(proto, tmp_path))
    feeds = feeds_of(graph)
    np.testing.assert_array_equal(run_float(graph, feeds)[0], run(ordered, feeds)[0])


def test_progress_is_told_and_loading_can_be_cancelled(tmp_path: Path) -> None:
    path, told = save(model(IMAGE, "y = Relu (x)"), tmp_path), []
    load(path, progress=Progress(lambda stage, done, total: told.append((stage, done, total))))
    assert told[0] == ("read", 0, 4) and told[-1] == ("check", 4, 4)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    with pytest.raises(Cancelled):
        load(path, progress=Progress(cancelled=lambda: True))


# Control flow, functions, unknown operators


def if_model(condition: str, constants: dict[str, Array]) -> onnx.ModelProto:
    body = f"""
        a = Relu (x)
        {condition}
        t = If (c) <then_branch = one () => (v) {{ u = Mul (a, two)
        v = Add (u, a) }}, else_branch = other () => (v) {{ v = Neg (a) }}>
        d = Not (c)
        e = If (d) <then_branch = one () => (v) {{ v = Exp (t) }}, else_branch = other () => (v) {{ v = Neg (t) }}>
        y = Add (e, a)
    """
    lines = body.replace("\n        v = Add", " v = Add")
    return model(IMAGE, lines, {"two": np.float32(2), **constants})


@pytest.mark.parametrize("truth", [True, False])
def test_if_with_a_decided_condition_becomes_its_branch(truth: bool, tmp_path: Path) -> None:
    graph = assert_loads_as(if_model("c = Identity (flag)", {"flag": np.array(truth)}), tmp_path)
    operators = [node.op_type for node in graph.graph]
    assert operators == (["Relu", "Mul", "Add", "Neg", "Add"] if truth else ["Relu", "Neg", "Exp", "Add"])


def test_if_decided_by_a_shape_becomes_its_branch(tmp_path: Path) -> None:
    condition = "n = Size (x)\n        c = Greater (n, few)"
    graph = assert_loads_as(if_model(condition, {"few": np.int64(10)}), tmp_path)
    assert "If" not in {node.op_type for node in graph.graph}


def test_branches_may_give_out_constants_and_outer_tensors(tmp_path: Path) -> None:
    taken = "one () => (k, p) { k = Constant <value_float = 2.5> () p = Identity (a) }"
    other = "two () => (q, r) { q = Identity (a) r = Identity (a) }"
    body = f"a = Relu (x)\nt, s = If (flag) <then_branch = {taken}, else_branch = {other}>\ny = Mul (t, s)"
    proto = model(IMAGE, body, {"flag": np.array(True)})
    graph = assert_loads_as(proto, tmp_path)
    assert "If" not in {node.op_type for node in graph.graph}


def test_outputs_of_a_taken_branch_keep_their_names(tmp_path: Path) -> None:
    taken = "one () => (k, p, p) { k = Constant <value_float = 2.5> () p = Relu (x) }"
    other = "two () => (q, q, q) { q = Neg (x) }"
    proto = model(
        IMAGE,
        f"t, s, y = If (flag) <then_branch = {taken}, else_branch = {other}>",
        {"flag": np.array(True)},
        ["y", "t", "s"],
    )
    graph = load(save(proto, tmp_path))
    x = floats(1, 3, 8, 8)
    for found, wanted in zip(run_float(graph, {"x": x}), [np.maximum(x, 0), 2.5, np.maximum(x, 0)], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert [v.name for v in graph.graph.outputs] == ["y", "t", "s"]


def test_if_that_the_input_decides_is_refused(tmp_path: Path) -> None:
    condition = "m = ReduceMax <keepdims = 0> (x)\n        c = Greater (m, zero)"
    with pytest.raises(UnsupportedOperator, match=r"depends on the input: If_t, If_e"):
        load(save(if_model(condition, {"zero": np.float32(0)}), tmp_path))


def test_unsupported_operators_are_all_listed_once(tmp_path: Path) -> None:
    body = "a = Relo (x)\nb = Relu (a)\nc = Conv3000 (b)\nd = Decode (c)\ny = Relo (d)"
    proto = model(IMAGE, body)
    proto.graph.node[3].domain = "vendor"
    proto.opset_import.add(domain="vendor", version=1)
    with pytest.raises(UnsupportedOperator) as caught:
        load(save(proto, tmp_path))
    for name in ("Relo (Relo_a)", "Conv3000 (Conv3000_c)", "vendor.Decode (Decode_d)", "Relo (Relo_y)"):
        assert caught.value.what.count(name) == 1
    assert "'Relu'" in caught.value.hint and "`outputs`" in caught.value.hint


def test_loops_are_refused_by_name(tmp_path: Path) -> None:
    body = "y = Loop (n, , x) <body = one (i, c, v) => (k, w) { k = Identity (c)\nw = Add (v, v) }>"
    proto = model(IMAGE, body.replace("\n", " "), {"n": np.int64(3)})
    with pytest.raises(UnsupportedOperator, match=r"Loop \(Loop_y\)"):
        load(save(proto, tmp_path))


def test_an_operator_inside_a_taken_branch_is_checked_too(tmp_path: Path) -> None:
    body = "y = If (flag) <then_branch = g () => (v) { v = Blur (x) }, else_branch = h () => (v) { v = Relu (x) }>"
    taken = model(IMAGE, body, {"flag": np.array(True)})
    with pytest.raises(UnsupportedOperator, match="Blur"):
        load(save(taken, tmp_path))
    graph = load(save(model(IMAGE, body, {"flag": np.array(False)}), tmp_path))
    assert [node.op_type for node in graph.graph] == ["Relu"]


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 18, "mine" : 1]>
        agraph (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { a = mine.Twice (x)  y = mine.Twice (a) }
        <domain: "mine", opset_import: ["" : 18, "mine" : 1]> Double (x) => (y) { y = Add (x, x) }
        <domain: "mine", opset_import: ["" : 18, "mine" : 1]> Twice (x) => (y) { h = mine.Double (x)  y = Relu (h) }
    """
    graph = assert_loads_as(onnx.parser.parse_model(text), tmp_path)
    assert [node.op_type for node in graph.graph] == ["Add", "Relu", "Add", "Relu"]
    assert not graph.functions


def test_operators_of_onnxruntime_itself_load(tmp_path: Path) -> None:
    proto = model(IMAGE, "a = Gelu (x)\nq = QuickGelu (a)\ny = Relu (q)")
    for node in proto.graph.node[:2]:
        node.domain = "com.microsoft"
    proto.opset_import.add(domain="com.microsoft", version=1)
    assert_loads_as(proto, tmp_path)
    proto.graph.node[0].op_type = "Gelulu"
    with pytest.raises(UnsupportedOperator, match="Gelulu"):
        load(save(proto, tmp_path))


# Files that are not what they claim


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    proto = model(IMAGE, "a = Add (x, b)\nb = Relu (a)\ny = Relu (b)")
    with pytest.raises(ModelError, match="cycle"):
        load(save(proto, tmp_path))


def test_a_tensor_that_nothing_makes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Add_y: reads tensor 'ghost'"):
        load(save(model(IMAGE, "y = Add (x, ghost)"), tmp_path))
    with pytest.raises(ModelError, match=r"output 'ghost' is made by nothing"):
        load(save(model(IMAGE, "y = Relu (x)", outputs=["y", "ghost"]), tmp_path))


@pytest.mark.parametrize(
    "body", ["y = Relu (x)\ny = Abs (x)", "x = Relu (x)\ny = Relu (x)", "w = Relu (x)\ny = Abs (w)"]
)
def test_a_tensor_made_twice_is_refused(body: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="twice"):
        load(save(model(IMAGE, body, WEIGHTS), tmp_path))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Relu (x, x)", "Relu has 2 inputs"),
        ("y = Conv (x)", "Conv has 1 inputs"),
        ("y, z = Relu (x)", "Relu has 2 outputs"),
        ("y = Add (, x)", "Add lacks its first input"),
        ("y = Cast (x)", "Cast lacks its attribute 'to'"),
        ("y = Concat <axis = 1.5> (x, x)", "the attribute 'axis' of Concat is of the wrong type"),
        ("y = Reshape (x, shape)", "Reshape_y"),
        ("y = Add (x, w)", "Add_y"),
        ("y = MatMul (x, w)", "MatMul_y"),
        ("y = Conv (x, w, five)", "Conv_y: 'five' has the shape [5] for 4 channels"),
    ],
)
def test_a_node_that_does_not_fit_is_named(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load(save(model(IMAGE, body, WEIGHTS | {"shape": whole(5, 7)}), tmp_path))
    assert message in str(caught.value) and "model.onnx" in caught.value.where


def test_the_content_of_a_constant_node_must_fill_its_shape(tmp_path: Path) -> None:
    proto = model(IMAGE, "c = Constant <value_float = 1.0> ()\ny = Add (x, c)")
    broken = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    broken.dims[0] = 3
    proto.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("value", broken))
    with pytest.raises(ModelError, match="the constant 'c' cannot be read"):
        load(save(proto, tmp_path))


def test_a_constant_without_content_is_refused(tmp_path: Path) -> None:
    proto = model(IMAGE, "y = Add (x, two)", {"two": np.float32(2)})
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].dims[:] = [97, 120, 105, 115]
    with pytest.raises(ModelError, match="tensor 'two' has no content"):
        load(save(proto, tmp_path))


def test_inputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    proto = model(IMAGE, "y = Relu (x)")
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))
    with pytest.raises(ModelError, match="'x' is not a tensor"):
        load(save(proto, tmp_path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_politely(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineError) as caught:
        load(path)
    assert caught.value.where and not isinstance(caught.value, FileError)


def test_paths_that_are_no_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        load(tmp_path / "no.onnx")
    with pytest.raises(FileError, match="is a folder"):
        load(tmp_path)
