"""Model files are untrusted: weights stay in the model's folder, and damage or malice ends in an EngineError."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engine.demo import MODEL
from engine.errors import EngineError, FileError, ModelError
from engine.frontends.onnx import load
from engine.graph.execution import run_float
from tests.engine.frontends.model_files import IMAGE, Array, floats, model, run, save, whole

W, B = floats(4, 3, 3, 3), floats(4)


def external_model(location: str, **entries: object) -> onnx.ModelProto:
    """A convolution whose weight lies in the file `location`."""
    proto = model(IMAGE, "y = Conv (x, w, b)", {"w": W, "b": B})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


@pytest.mark.parametrize("place", ["weights.bin", "sub/dir/weights.bin", "./weights.bin", "sub/../weights.bin"])
def test_weights_in_files_of_the_models_folder_are_read(place: str, tmp_path: Path) -> None:
    (tmp_path / "sub" / "dir").mkdir(parents=True)
    (tmp_path / place).write_bytes(b"head" + W.tobytes() + b"tail")
    for entries in ({"offset": 4}, {"offset": 4, "length": W.nbytes}):
        graph = load(save(external_model(place, **entries), tmp_path))
        x = floats(1, 3, 8, 8)
        expected = run(model(IMAGE, "y = Conv (x, w, b)", {"w": W, "b": B}), {"x": x})
        np.testing.assert_array_equal(run_float(graph, {"x": x})[0], expected[0])


def test_weights_are_read_beside_the_model_whatever_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "w.bin").write_bytes(W.tobytes())
    save(external_model("w.bin"), tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    assert len(load(Path("models/model.onnx")).graph) == 1
    (tmp_path / "link.onnx").symlink_to(tmp_path / "models" / "model.onnx")
    assert len(load(Path("link.onnx")).graph) == 1


def test_constants_inside_nodes_may_lie_outside_as_well(tmp_path: Path) -> None:
    proto = model(IMAGE, "y = Add (x, c)")
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="c.bin")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(floats(8))))
    proto.graph.node[0].attribute[0].t.CopyFrom(tensor)
    (tmp_path / "c.bin").write_bytes(floats(8).tobytes())
    graph = load(save(proto, tmp_path))
    x = floats(1, 3, 8, 8)
    np.testing.assert_array_equal(run_float(graph, {"x": x})[0], x + floats(8))


@pytest.mark.parametrize(
    "place", ["../secret.bin", "sub/../../secret.bin", "/etc/hostname", "", "link.bin", "linked/s"]
)
def test_weights_outside_the_models_folder_are_refused(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "s").write_bytes(W.tobytes())
    (tmp_path / "secret.bin").write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="outside the model's folder") as caught:
        load(save(external_model(place), folder))
    assert "'w'" in caught.value.where


@pytest.mark.parametrize(
    ("entries", "kind", "message"),
    [
        ({"location": "none.bin"}, FileError, "'none.bin' is missing"),
        ({"location": "folder"}, FileError, "is missing"),
        ({"location": "w\0.bin"}, ModelError, "outside"),
        ({"location": "w.bin", "offset": 1}, ModelError, "truncated"),
        ({"location": "w.bin", "offset": -1}, ModelError, "truncated"),
        ({"location": "w.bin", "offset": 1 << 60}, ModelError, "truncated"),
        ({"location": "w.bin", "offset": "four"}, ModelError, "not a number"),
        ({"location": "w.bin", "length": 4}, ModelError, "do not fill"),
        ({"location": "w.bin", "length": 1 << 50}, ModelError, "do not fill"),
    ],
)
def test_missing_and_short_weight_files_are_told(
    entries: dict[str, object], kind: type[EngineError], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    (tmp_path / "folder").mkdir()
    with pytest.raises(kind, match=message):
        load(save(external_model(**entries), tmp_path))  # type: ignore[arg-type]


def test_weights_that_claim_more_than_a_model_can_hold_are_not_read(tmp_path: Path) -> None:
    proto = external_model("w.bin")
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(1 << 40)  # takes no space on the disk
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend([1 << 20, 1 << 15])
    with pytest.raises(ModelError, match="larger than 2 GB"):
        load(save(proto, tmp_path))


def damaged(change: Callable[[onnx.TensorProto], None]) -> onnx.ModelProto:
    proto = model(IMAGE, "y = Conv (x, w, b)", {"w": W, "b": B})
    change(proto.graph.initializer[0])
    return proto


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t.ClearField("raw_data"), id="no content"),
        pytest.param(lambda t: setattr(t, "raw_data", t.raw_data[:-3]), id="too short"),
        pytest.param(lambda t: setattr(t, "raw_data", t.raw_data + b"1234"), id="too long"),
        pytest.param(lambda t: setattr(t, "data_type", 0), id="no type"),
        pytest.param(lambda t: setattr(t, "data_type", 99), id="an unknown type"),
        pytest.param(lambda t: setattr(t, "data_type", TensorProto.STRING), id="text"),
        pytest.param(lambda t: t.dims.__setitem__(0, -4), id="a negative size"),
        pytest.param(lambda t: t.dims.__setitem__(0, 1 << 62), id="an endless size"),
        pytest.param(lambda t: t.dims.append(5), id="another shape"),
        pytest.param(lambda t: setattr(t, "name", ""), id="no name"),
        pytest.param(lambda t: setattr(t, "name", "b"), id="another's name"),
    ],
)
def test_damaged_constants_are_refused(change: Callable[[onnx.TensorProto], None], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load(save(damaged(change), tmp_path))
    assert "model.onnx" in caught.value.where


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    data = model(IMAGE, "middle = Relu (x)\ny = Abs (middle)").SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(b"middle", b"mid\xff\xfee"))
    with pytest.raises(ModelError, match="not text"):
        load(path)


@pytest.mark.parametrize("tenths", range(10))
def test_a_truncated_model_is_refused(tenths: int, tmp_path: Path) -> None:
    data = Path(MODEL).read_bytes()
    path = tmp_path / "part.onnx"
    path.write_bytes(data[: len(data) * tenths // 10])
    with pytest.raises(ModelError) as caught:
        load(path)
    assert "part.onnx" in caught.value.where and caught.value.hint


def everything() -> bytes:
    """One small model of many kinds of nodes and little else, so that a changed byte hits structure."""
    body = """
        q = QuantizeLinear (x, s, z)
        xq = DequantizeLinear (q, s, z)
        wq = DequantizeLinear <axis = 0> (w8, ws, wz)
        c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (xq, wq, b)
        sh = Shape (c)
        g = Gather <axis = 0> (sh, i)
        u = Unsqueeze (g, nil)
        t = Concat <axis = 0> (u, rest)
        f = Reshape (c, t)
        e = Range (i, k, one)
        p = Pad (c, pads)
        r = Resize <mode = "nearest"> (p, , scales)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        l = Slice (m, nil, five, two)
        v, w = TopK (f, three)
        o = If (flag) <then_branch = a () => (n) { n = Mul (v, ws) }, else_branch = b () => (n) { n = Neg (v) }>
    """
    constants = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "w8": np.arange(-9, 9, dtype=np.int8).reshape(2, 1, 3, 3),
        "ws": np.array([0.01, 0.02, 0.03][:2], np.float32),
        "wz": np.zeros(2, np.int8),
        "b": floats(2),
        "i": np.int64(0),
        "k": np.int64(4),
        "one": np.int64(1),
        "nil": whole(0),
        "rest": whole(-1),
        "pads": whole(0, 0, 1, 1, 0, 0, 1, 1),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "five": whole(5),
        "two": whole(2),
        "three": whole(2),
        "flag": np.array(True),
    }
    inputs = {"x": (1, 1, 4, 4)}
    return model(inputs, body, constants, ["l", "o", "e"]).SerializeToString()


EVERYTHING = everything()
DAMAGE = st.lists(st.tuples(st.integers(0, len(EVERYTHING) - 1), st.integers(0, 255)), min_size=1, max_size=4)
# Looking for the smallest damage would cost more than it tells.
SWEEP = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def load_damaged(path: Path, damage: list[tuple[int, int]]) -> None:
    data = bytearray(EVERYTHING)
    for place, value in damage:
        data[place] = value
    path.write_bytes(bytes(data))
    try:
        load(path)
    except EngineError as error:
        assert error.what and error.where


def test_the_undamaged_model_loads(tmp_path: Path) -> None:
    load_damaged(tmp_path / "model.onnx", [])
    assert len(load(tmp_path / "model.onnx").graph) > 5


@settings(SWEEP, max_examples=300)
@given(DAMAGE)
def test_changed_bytes_end_in_a_model_or_in_an_engine_error(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    load_damaged(tmp_path / "model.onnx", damage)


@pytest.mark.slow
@settings(SWEEP, max_examples=10_000)
@given(DAMAGE)
def test_many_changed_bytes_end_in_a_model_or_in_an_engine_error(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    load_damaged(tmp_path / "model.onnx", damage)


HUGE = whole(1_000_000, 1_000_000)
REDUCED = "\nm = ReduceMax (c)\ny = Add (x, m)"
BOMBS: dict[str, tuple[str, dict[str, Array]]] = {
    "ConstantOfShape": ("c = ConstantOfShape (s)" + REDUCED, {"s": HUGE}),
    "Expand of a constant": ("c = Expand (k, s)" + REDUCED, {"k": np.float32(1), "s": HUGE}),
    "Expand of the input": ("y = Expand (x, s)", {"s": whole(1000, 1000, 1000, 3, 8, 8)}),
    "Tile": ("c = Tile (k, s)" + REDUCED, {"k": floats(1, 1), "s": HUGE}),
    "Tile beyond 64 bits": ("c = Tile (x, s)\ny = ReduceMax (c)", {"s": whole(1, 1, 1 << 62, 1)}),
    "Pad": ("y = Pad (x, s)", {"s": whole(0, 0, 0, 0, 0, 0, 1 << 40, 0)}),
    "Pad below nothing": ("y = Pad (x, s)", {"s": whole(0, 0, -20, 0, 0, 0, 0, 0)}),
    "Range": (
        "r = Range (a, b, d)\nc = Cast <to = 1> (r)" + REDUCED,
        {"a": np.int64(0), "b": np.int64(1 << 40), "d": np.int64(1)},
    ),
    "OneHot": ("c = OneHot (i, d, v)" + REDUCED, {"i": whole(1), "d": np.int64(1 << 40), "v": floats(2)}),
    "Resize": ('y = Resize <mode = "nearest"> (x, , f)', {"f": np.array([1, 1, 1e6, 1e6], np.float32)}),
    "RandomNormal": ("c = RandomNormal <shape = [1000000, 1000000]> ()" + REDUCED, {}),
    "Einsum": ('c = Einsum <equation = "a,b,c->abc"> (k, k, k)' + REDUCED, {"k": floats(10_000)}),
    "Conv padding": ("y = Conv <pads = [1000000, 1000000, 1000000, 1000000]> (x, w)", {"w": floats(1, 3, 3, 3)}),
    "MaxPool of more than there is": ("y = MaxPool <kernel_shape = [9, 9]> (x)", {}),
    "product of large constants": (
        "a = ConstantOfShape (s)\nb = Mul (a, k)\nc = MatMul (b, b)" + REDUCED,
        {"s": whole(1 << 14, 1 << 14), "k": np.float32(1)},
    ),
    "many constants": (
        "".join(f"c{i} = ConstantOfShape (s)\n" for i in range(40))
        + f"c = Sum ({', '.join(f'c{i}' for i in range(40))})"
        + REDUCED,
        {"s": whole(1 << 12, 1 << 12)},
    ),
}

LOAD_UNDER_LIMIT = """
import resource, sys
from pathlib import Path
from engine.errors import ModelError
from engine.session import Session
from engine.config import Config
import numpy as np
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for file in sorted(path.glob("*.onnx")):
    session = Session(Config(target_platform="rk3588"))
    try:
        session.load_onnx(file)
    except ModelError as error:
        print(file.stem, "refused", error.where)
        continue
    session.build(do_quantization=False)
    session.infer([np.zeros((1, 3, 8, 8), np.float32)], data_format="nchw")
    print(file.stem, "ran", "")
print("megabytes", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_small_files_cannot_ask_for_large_memory(tmp_path: Path) -> None:
    """Neither to load, nor when ONNX Runtime folds the constants of the simulated model."""
    names = list(BOMBS)
    for index, name in enumerate(names):
        save(model(IMAGE, *BOMBS[name]), tmp_path, f"{index:02}.onnx")
    root = Path(__file__).resolve().parents[3]
    child = subprocess.run(
        [sys.executable, "-c", LOAD_UNDER_LIMIT, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)),
    )
    assert child.returncode == 0, child.stderr
    *lines, memory = child.stdout.splitlines()
    for line, name in zip(lines, names, strict=True):
        assert line.split()[1] == "refused" and ".onnx: " in line, name
    assert int(memory.split()[1]) < 800


def test_large_constants_that_a_model_needs_still_load(tmp_path: Path) -> None:
    body = "a = ConstantOfShape (s)\nr = Expand (k, s)\nb = Add (a, r)\nm = ReduceMax (b)\ny = Add (x, m)"
    proto = model(IMAGE, body, {"s": whole(4200, 4200), "k": np.float32(2)})
    graph = load(save(proto, tmp_path))
    x = floats(1, 3, 8, 8)
    np.testing.assert_array_equal(run_float(graph, {"x": x})[0], x + 2)


def nested(depth: int) -> onnx.NodeProto:
    if not depth:
        return helper.make_node("Relu", ["x"], ["v"])
    graph = helper.make_graph([nested(depth - 1)], "inner", [], [onnx.ValueInfoProto(name="v")])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["v"])], "other", [], [onnx.ValueInfoProto(name="v")])
    return helper.make_node("If", ["flag"], ["v"], then_branch=graph, else_branch=other)


def test_nested_branches_are_read_and_endless_nesting_is_refused(tmp_path: Path) -> None:
    proto = model(IMAGE, "v = Relu (x)", {"flag": np.array(True)}, ["v"])
    proto.graph.node[0].CopyFrom(nested(20))
    assert [node.op_type for node in load(save(proto, tmp_path)).graph] == ["Relu"]
    deep = b""
    for _ in range(2000):  # graphs in attributes in nodes; the protobuf package itself would not write them
        for field in (1, 6, 5):
            deep = wrapped(field, deep)
    path = tmp_path / "deep.onnx"
    path.write_bytes(proto.SerializeToString() + wrapped(7, wrapped(1, deep)))
    with pytest.raises(ModelError, match="corrupt"):
        load(path)


def wrapped(field: int, content: bytes) -> bytes:
    """A protobuf field that holds a message."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([field << 3 | 2, *length, size]) + content
