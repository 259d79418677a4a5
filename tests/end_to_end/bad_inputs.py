"""The table of bad input: how each bad thing is made, at which step it must be noticed, and what must be said of it."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from PIL import Image

from engine.config import Config
from engine.errors import (
    ConfigError,
    DatasetError,
    EngineError,
    FileError,
    InputError,
    ModelError,
    QuantizationError,
    UnsupportedOperator,
)
from engine.session import Session
from tests.end_to_end.jobs import OPTIONS, Job, hybrid_files, model_bytes, tiny_model

Array = np.ndarray[Any, Any]

EVERYWHERE = ("session", "rknn", "cli")
IN_PYTHON = ("session", "rknn")


@dataclasses.dataclass(frozen=True)
class Row:
    """One bad thing. `change` holds the fields of `Job` that differ from the good one; a callable is called in the
    folder of the test to make the thing, and returns the field. `says` are parts of the message."""

    name: str
    step: str
    error: type[EngineError]
    says: tuple[str, ...]
    change: dict[str, Any]
    levels: tuple[str, ...] = EVERYWHERE
    exit_code: int = 1

    def job(self) -> Job:
        """Make the bad thing in the current folder."""
        return Job(**{key: value() if callable(value) else value for key, value in self.change.items()})


def row(
    name: str,
    step: str,
    error: type[EngineError],
    *says: str,
    levels: tuple[str, ...] = EVERYWHERE,
    exit_code: int | None = None,
    **change: Any,
) -> Row:
    """A Row; wrong settings are wrong usage on the command line, everything else a failed job."""
    code = (2 if step == "config" else 1) if exit_code is None else exit_code
    return Row(name, step, error, says, change, levels, code)


def file(name: str, content: bytes | Callable[[], bytes]) -> Callable[[], str]:
    """Makes a file of this content, and names it."""

    def make() -> str:
        Path(name).write_bytes(content if isinstance(content, bytes) else content())
        return name

    return make


def folder(name: str) -> Callable[[], str]:
    """Makes a folder, and names it."""

    def make() -> str:
        Path(name).mkdir()
        return name

    return make


def listing(line: str, content: bytes | Array | None = None) -> Callable[[], str]:
    """Makes a dataset file: a good sample, then `line`, which is also the name of a file if it has `content`."""

    def make() -> str:
        if isinstance(content, bytes):
            Path(line).write_bytes(content)
        elif content is not None:
            np.save(line, content)
        Path("bad.txt").write_text(f"0.png\n{line}\n")
        return "bad.txt"

    return make


def npy(values: Any) -> Callable[[], list[str]]:
    """Makes bad.npy, and a list of its name."""

    def make() -> list[str]:
        np.save("bad.npy", values)
        return ["bad.npy"]

    return make


def image(kind: str, size: int = 8) -> bytes:
    """A noisy picture."""
    pixels = np.random.default_rng(9).integers(0, 256, (size, size, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def package() -> bytes:
    """A package of the good model."""
    session = Session(Config())
    session.load("tiny.onnx")
    session.build(do_quantization=False)
    content = session.export("made.rknn").read_bytes()
    Path("made.rknn").unlink()
    return content


def one_node(op: str, domain: str = "", **attributes: Any) -> bytes:
    """A model of one node named 'middle' from picture to 'y'."""
    node = helper.make_node(op, ["image"], ["y"], name="middle", domain=domain, **attributes)
    return model_bytes([node], {"image": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]})


def mismatch() -> bytes:
    """A model that multiplies matrices which do not fit."""
    node = helper.make_node("MatMul", ["image", "m"], ["y"], name="middle")
    return model_bytes([node], {"image": [1, 3, 8, 8]}, {"y": None}, m=np.zeros((5, 5), np.float32))


def damaged_weights() -> bytes:
    """The good model, with fewer bytes of a weight than its shape needs."""
    model = onnx.ModelProto.FromString(tiny_model())
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:10]
    return bytes(model.SerializeToString())


def dangling() -> bytes:
    """The good model, with a node that reads what nothing makes."""
    model = onnx.ModelProto.FromString(tiny_model())
    model.graph.node[1].input[0] = "nowhere"
    return bytes(model.SerializeToString())


def data_dependent() -> bytes:
    """A model whose output's shape depends on the picture."""
    node = helper.make_node("NonZero", ["image"], ["places"], name="places")
    cast = helper.make_node("Cast", ["places"], ["y"], name="cast", to=1)
    return model_bytes([node, cast], {"image": [1, 3, 8, 8]}, {"y": [4, None]})


# Kinds of rows: the first word is the row's name.


def model(name: str, error: type[EngineError], content: bytes | Callable[[], bytes], *says: str, **more: Any) -> Row:
    """A model file of this content."""
    path = more.pop("path", "m.onnx")
    return row(name, "load", error, *says, model=file(path, content), **more)


def setting(key: str, value: Any, *says: str, **more: Any) -> Row:
    """A setting that is wrong whatever the model is."""
    name = f"{key} {value!r:.40}"
    return row(name, "config", ConfigError, f"{key}|{OPTIONS.get(key, '--')}", *says, config={key: value}, **more)


def unfit(key: str, value: Any, *says: str) -> Row:
    """A setting that does not fit the model."""
    return row(f"{key} {value}", "load", ConfigError, key, *says, config={key: value})


def batch(value: Any, exit_code: int = 2) -> Row:
    """A batch that is none, which argparse refuses before the engine does."""
    says = ("rknn_batch_size|--batch", str(value))
    return row(f"batch {value}", "build", ConfigError, *says, rknn_batch_size=value, exit_code=exit_code)


def sample(line: str, content: bytes | Array | None, *says: str) -> Row:
    """A bad line of the dataset file, behind a good one."""
    name = f"{line}, {says[0]}"
    return row(name, "build", DatasetError, "bad.txt line 2", *says, dataset=listing(line, content))


def fed(name: str, values: Array, *says: str) -> Row:
    """An array that does not fit the model's input."""
    return row(name, "infer", InputError, "'image'|bad.npy", *says, feeds=[values], files=npy(values))


def hybrid(name: str, error: type[EngineError], *says: str, **more: Any) -> Row:
    """Files of hybrid quantization that step 2 cannot use."""
    return row(name, "step2", error, *says, **more)


def edited(old: str, new: str, target_platform: str = "") -> Callable[[], str]:
    """Makes bad.cfg, the good cfg with something replaced in the row of relu, or at the top; the other two files are of
    a build for the target."""

    def make() -> str:
        files = hybrid_files(target_platform) if target_platform else hybrid_files()
        for name, content in files.items():
            Path(name).write_bytes(content)
        text = files["tiny.quantization.cfg"].decode()
        place = text.index(old) if old in text[:200] else text.index(old, text.index("    relu:\n"))
        Path("bad.cfg").write_text(text[:place] + new + text[place + len(old) :])
        return "bad.cfg"

    return make


def cfg(name: str, old: str, new: str, *says: str, target_platform: str = "") -> Row:
    """An edit of the cfg that cannot be."""
    return hybrid(f"cfg: {name}", QuantizationError, "bad.cfg", *says, cfg=edited(old, new, target_platform))


def wished(name: str, precision: str, *says: str, target_platform: str = "") -> Row:
    """A line of custom_quantize_layers that cannot be."""
    new = f"custom_quantize_layers:\n    {name}: {precision}"
    return cfg(f"{name} {precision} {target_platform}", "custom_quantize_layers: {}", new, "line", *says,
               target_platform=target_platform)  # fmt: skip


def stored(name: str, change: Callable[[bytes], bytes]) -> Callable[[], str]:
    """Makes a file like that of the good job, with other bytes."""

    def make() -> str:
        Path(f"bad{Path(name).suffix}").write_bytes(change(hybrid_files()[name]))
        return f"bad{Path(name).suffix}"

    return make


def other(name: str) -> Callable[[], str]:
    """Makes a file as step 1 wrote it for a model with other weights."""
    return file(f"bad{Path(name).suffix}", lambda: hybrid_files(seed=9)[name])


def tuned(name: str, error: type[EngineError], *says: str, **more: Any) -> Row:
    """A search that cannot be."""
    return row(name, "tune", error, *says, levels=more.pop("levels", ("session", "cli")), **more)


VENDOR = b"RKNN" + bytes(4) + (6).to_bytes(8, "little") + bytes(64)
TFLITE = b"\x1c\0\0\0TFL3" + bytes(64)
PICTURE = np.full((1, 8, 8, 3), 100, np.uint8)
FLOATS = PICTURE.astype(np.float32)
WITH_NAN = np.where(np.arange(192).reshape(1, 8, 8, 3) == 5, np.nan, FLOATS)
NPY = b"\x93NUMPY\x01\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8, 3), }".ljust(127) + b"\n"
SIZE = [[1, 3, 8, 8]]
DYNAMIC = file("m.onnx", tiny_model("n"))

MODELS = [
    row("missing", "load", FileError, "absent.onnx", "does not exist", "check the path", model="absent.onnx"),
    row("a folder", "load", FileError, "m.onnx", "is a folder", model=folder("m.onnx")),
    model("empty", ModelError, b"", "m.onnx", "is empty", "again"),
    model("truncated", ModelError, tiny_model()[:-200], "m.onnx", "truncated"),
    model("seven bytes", ModelError, tiny_model()[:7], "m.onnx", "truncated"),
    model("a jpg", ModelError, image("jpeg"), "m.onnx", "not an ONNX model"),
    model("a text", ModelError, b"0.png\n1.png\n", "m.onnx", "not an ONNX model"),
    model("a yaml", ModelError, b"a: 1\n", "m.onnx", "not an ONNX model|no ONNX graph"),
    model("the vendor's", FileError, VENDOR, "v.rknn", "vendor", "source model", path="v.rknn"),
    model("the vendor's as onnx", EngineError, VENDOR, "m.onnx", "vendor|not an ONNX"),
    model("tflite", ModelError, TFLITE, "m.tflite", "corrupt|again", path="m.tflite", levels=("session", "cli")),
    model("tflite as onnx", EngineError, TFLITE, "m.onnx", "corrupt"),
    model("damaged weights", ModelError, damaged_weights, "m.onnx", "check the model|again"),
    model("corrupt graph", ModelError, dangling, "relu", "'nowhere'"),
    model("unknown operator", UnsupportedOperator, one_node("Rellu"), "Rellu", "middle", "'Relu'"),
    model("unknown domain", UnsupportedOperator, one_node("Thing", domain="my.own"), "my.own.Thing", "middle"),
    model("wrong attribute", ModelError, one_node("Relu", alpha=1.0), "m.onnx", "middle"),
    model("impossible shape", ModelError, mismatch, "middle"),
    model("dynamic input", ConfigError, tiny_model("n"), "'image'", "1,3,224,224|input_size_list"),
    model("shape from data", ModelError, data_dependent, "places", "cut the model"),
    model("package: another zip", FileError, b"PK\x05\x06" + bytes(18), "m.rknn", "not a package", path="m.rknn"),
    model("package: truncated", FileError, lambda: package()[:-100], "m.rknn", "damaged", "again", path="m.rknn"),
    model("package: one byte", FileError, lambda: package().replace(b"scores", b"scored", 1), "m.rknn", path="m.rknn"),
    model("package: empty", FileError, b"", "m.rknn", "not a package", path="m.rknn"),
    row("package: missing", "load", FileError, "m.rknn", "does not exist", model="m.rknn"),
    row("package: a folder", "load", FileError, "m.rknn", "folder|directory", model=folder("m.rknn")),
]  # fmt: skip

CUTS = [
    row("input", "load", ConfigError, "'imgae'", "'image'", inputs=["imgae"], input_size_list=SIZE),
    row("output", "load", ConfigError, "'score'", "'scores'", outputs=["score"]),
    row("output twice", "load", ConfigError, "'scores'", "twice", outputs=["scores", "scores"]),
    row("names as text", "load", ConfigError, "inputs", "list", inputs="image", input_size_list=SIZE, levels=IN_PYTHON),
    row("no outputs", "load", ConfigError, "outputs", "empty", outputs=[], levels=IN_PYTHON),
    row("a constant", "load", ConfigError, "'w'", "constant", inputs=["w"]),
    row("nothing computed", "load", ModelError, "no output depends", outputs=["w"]),
    row("too many sizes", "load", ConfigError, "2 shapes for 1", "image", input_size_list=[*SIZE, [1]]),
    row("rank", "load", ConfigError, "[3, 8, 8]", "image", input_size_list=[[3, 8, 8]]),
    row("another size", "load", ConfigError, "[1, 4, 8, 8]", "image", input_size_list=[[1, 4, 8, 8]]),
    row("too large", "load", ConfigError, "too large", "image", model=DYNAMIC, input_size_list=[[1 << 40, 3, 8, 8]]),
    row("size zero", "load", ConfigError, "positive", input_size_list=[[0, 3, 8, 8]], exit_code=2),
    row("flat sizes", "load", ConfigError, "input_size_list", input_size_list=SIZE[0], levels=IN_PYTHON),
    row("sizes as text", "load", ConfigError, "input_size_list", input_size_list=[["1", "3"]], levels=IN_PYTHON),
    row("fractions", "load", ConfigError, "input_size_list", input_size_list=[[1.5, 3, 8, 8]], levels=IN_PYTHON),
]  # fmt: skip

SETTINGS = [
    row("unknown", "config", ConfigError, "target_platform|--target", config={"target_platfrom": "rk3588"}),
    setting("target_platform", "rk3658", "'rk3568'"),
    setting("target_platform", 3588, "'rk3588'", levels=IN_PYTHON),
    setting("quantized_dtype", "asymmetric_quantised-8", "'asymmetric_quantized-8'"),
    setting("quantized_algorithm", "mse", "'mmse'"),
    setting("quantized_method", "chanel", "'channel'"),
    setting("float_dtype", "float32", "'float16'"),
    setting("optimization_level", 4, "0, 1, 2 or 3"),
    setting("optimization_level", "high", "'high'"),
    setting("custom_string", "x" * 1024, "1023"),
    setting("custom_string", "half of a letter \ud800", "cannot be stored"),
    setting("std_values", [[1, 0, 1]], "zero"),
    setting("mean_values", [["a", 1, 2]], "'a"),
    setting("mean_values", [[float("nan"), 1, 2]], "finite"),
    setting("std_values", [[float("inf"), 1, 2]], "finite"),
    setting("mean_values", "128,128,128", "'128,128,128'", levels=IN_PYTHON),
    setting("mean_values", 128, "128", levels=IN_PYTHON),
    setting("mean_values", [128, [1, 2, 3]], "mixes", levels=IN_PYTHON),
    setting("mean_values", [[]], "empty", levels=IN_PYTHON),
    setting("quant_img_RGB2BGR", "maybe", "'maybe'"),
    unfit("mean_values", [[1, 2]], "2 values", "3 channels", "'image'"),
    unfit("std_values", [[1, 2, 3, 4]], "4 values", "3 channels", "'image'"),
    unfit("mean_values", [[1, 2, 3], [1]], "2 entries", "1 input"),
    unfit("quant_img_RGB2BGR", [True, False], "2 entries", "1 input"),
    row("equalization", "config", ConfigError, "equalization", "'on'", config={"equalization": "on"}, levels=IN_PYTHON),
    row("correction", "config", ConfigError, "bias_correction", "1", config={"bias_correction": 1}, levels=IN_PYTHON),
    row("float16 on rv1106", "build", ConfigError, "rv1106 has no float16", "quantize the model",
        config={"target_platform": "rv1106"}, do_quantization=False),
    batch(0),
    batch(-1),
    batch(1.5),
    batch("four"),
    batch(10**9, exit_code=1),
]  # fmt: skip

DATASETS = [
    row("missing", "build", DatasetError, "absent.txt", "does not exist", dataset="absent.txt"),
    row("none", "build", EngineError, "dataset", dataset=None, levels=IN_PYTHON),
    row("no path", "build", InputError, "dataset", "int", dataset=3, levels=IN_PYTHON),
    row("empty", "build", DatasetError, "bad.txt", "no samples", "a line", dataset=file("bad.txt", b"")),
    row("comments only", "build", DatasetError, "bad.txt", "no samples", dataset=file("bad.txt", b"# 0.png\n\n")),
    row("a folder", "build", DatasetError, "pictures", "is a folder", "text file", dataset=folder("pictures")),
    row("an image", "build", DatasetError, "0.jpg", "not a text file|not UTF-8", dataset=file("0.jpg", image("jpeg"))),
    sample("absent.png", None, "absent.png does not exist"),
    sample("snapshot", None, "'snapshot'"),
    sample("a.gif", b"GIF89a", "'.gif'", "png"),
    sample("a.jpg", b"not an image", "a.jpg", "not a JPEG"),
    sample("a.png", b"", "a.png", "not a JPEG"),
    sample("a.jpg", image("jpeg", 64)[:-900], "damaged", "a.jpg"),
    sample("a.png", image("png", 64)[:-900], "damaged", "a.png"),
    sample("0.png 1.png", None, "expected 1 path, got 2"),
    sample('"0.png', None, "quote"),
    sample("a.npy", np.zeros((1, 9, 9, 3)), "(1, 8, 8, 3)", "(1, 9, 9, 3)"),
    sample("a.npy", np.zeros(192), "(192,)", "a.npy"),
    sample("a.npy", np.array([["x"]]), "numbers", "a.npy"),
    sample("a.npy", np.array([[{}]], object), "object", "a.npy"),
    sample("a.npy", PICTURE.astype(complex), "complex", "a.npy"),
    sample("a.npy", NPY + b"12", "truncated", "a.npy"),
    sample("a.npy", NPY[:20], "not a valid npy", "a.npy"),
    sample("a.npy", WITH_NAN, "1 of 192", "a.npy", "(0, 0, 1, 2)"),
    sample("a.npy", np.where(np.isnan(WITH_NAN), -np.inf, 0), "infinite", "a.npy"),
    row("NaN in the model", "build", QuantizationError, "'y'", "sample 1", "mean and std",
        model=file("m.onnx", one_node("Log"))),
    row("infinity in the model", "build", QuantizationError, "'y'", "sample",
        model=file("m.onnx", one_node("Reciprocal")), dataset=listing("z.npy", PICTURE * 0), config={}),
]  # fmt: skip

RESULTS = [
    row("folder missing", "export", FileError, "no/out.rknn", "folder", export="no/out.rknn"),
    row("a folder", "export", FileError, "snapshot", "is a folder", export="snapshot"),
    row("a file as folder", "export", FileError, "0.png/out.rknn", "folder", export="0.png/out.rknn"),
    row("full device", "export", FileError, "/dev/full", "No space left", export="/dev/full"),
    row("name too long", "export", FileError, "cannot be written", "too long", export="x" * 300 + ".rknn"),
    row("zero byte", "export", FileError, "null", export="a\0b.rknn"),
    row("no name", "export", InputError, "export_path", "None", export=None, levels=IN_PYTHON),
    row("save: folder missing", "infer", FileError, "no/out.npz", "folder", save="no/out.npz", levels=("cli",)),
    row("save: a folder", "infer", FileError, "snapshot", "is a folder", save="snapshot", levels=("cli",)),
    row("save: full device", "infer", FileError, "/dev/full", "No space left", save="/dev/full", levels=("cli",)),
    row("snapshot: a file", "analyze", FileError, "0.png", "not a folder", output_dir="0.png"),
    row("snapshot: under a file", "analyze", FileError, "0.png/deep", "cannot be written", output_dir="0.png/deep"),
    row("snapshot: full device", "analyze", FileError, "/dev/full", "not a folder", output_dir="/dev/full"),
    row("snapshot: no name", "analyze", InputError, "output_dir", output_dir=3, levels=IN_PYTHON),
]  # fmt: skip

INPUTS = [
    row("too many", "infer", InputError, "1", "got 2", "image", feeds=[PICTURE, PICTURE], files=["0.npy", "1.npy"]),
    row("none", "infer", InputError, "expected 1", "got 0", feeds=[], levels=IN_PYTHON),
    row("no files", "infer", InputError, "no input files", files=[], levels=("cli",), exit_code=2),
    fed("shape", np.zeros((1, 9, 8, 3)), "(1, 8, 8, 3)", "(1, 9, 8, 3)"),
    fed("rank", PICTURE.reshape(-1), "(1, 8, 8, 3)", "(192,)"),
    fed("layout", np.zeros((1, 3, 8, 8)), "(1, 3, 8, 8)", "data_format='nchw'|--data-format nchw"),
    fed("batch", np.repeat(PICTURE, 2, 0), "(2, 8, 8, 3)", "batch is 1"),
    fed("text", PICTURE.astype(str), "numbers"),
    fed("objects", PICTURE.astype(object), "object|of numbers"),
    fed("complex", PICTURE.astype(complex), "complex"),
    fed("NaN", WITH_NAN, "1 of 192"),
    fed("infinite", np.full((1, 8, 8, 3), np.inf), "infinite"),
    fed("too large", np.full((1, 8, 8, 3), 1e300), "too large for float32"),
    row("other layout", "infer", InputError, "'image'", "(1, 3, 8, 8)", data_format="nchw"),
    row("unknown layout", "infer", InputError, "'nwhc'", "'nhwc'", data_format="nwhc", exit_code=2),
    row("two layouts", "infer", InputError, "data_format", "2", data_format=["nhwc", "nhwc"], levels=IN_PYTHON),
    row("two pass-throughs", "infer", InputError, "pass_through", inputs_pass_through=[0, 1], levels=IN_PYTHON),
    row("a list", "infer", InputError, "'image'", "numpy.array", feeds=[PICTURE.tolist()], levels=IN_PYTHON),
    row("a path", "infer", InputError, "list of arrays", feeds="0.png", levels=IN_PYTHON),
    row("nothing", "infer", InputError, "None", feeds=None, levels=IN_PYTHON),
    row("unknown name", "infer", InputError, "'imgae'", "'image'", feeds={"imgae": PICTURE}, levels=IN_PYTHON),
    row("missing file", "infer", FileError, "absent.npy", "does not exist", files=["absent.npy"], levels=("cli",)),
    row("no npy", "infer", InputError, "a.npy", "npy", files=lambda: [file("a.npy", b"x")()], levels=("cli",)),
    row("sample missing", "analyze", DatasetError, "absent.png", "does not exist", sample=["absent.png"]),
    row("sample damaged", "analyze", DatasetError, "a.png", "not a JPEG", sample=lambda: [file("a.png", b"\x89PNG")()]),
    row("sample NaN", "analyze", DatasetError, "bad.npy", "1 of 192", sample=npy(WITH_NAN)),
    row("sample of two", "analyze", DatasetError, "1 path", "2", sample=["0.png", "1.png"]),
    row("sample as text", "analyze", InputError, "list", "['0.png']", sample="0.png", levels=IN_PYTHON),
    row("sample empty", "analyze", DatasetError, "1 path", "0", sample=[], levels=IN_PYTHON),
    row("sample nothing", "analyze", InputError, "None", sample=None, levels=IN_PYTHON),
]  # fmt: skip

HYBRID = [
    hybrid("no model", FileError, "absent.model", "does not exist", model_input="absent.model"),
    hybrid("no data", FileError, "absent.data", "does not exist|cannot be read", data_input="absent.data"),
    hybrid("no cfg", FileError, "absent.cfg", "does not exist", cfg="absent.cfg"),
    hybrid("no path", InputError, "model_input", "int", model_input=3, levels=IN_PYTHON),
    hybrid("no data path", InputError, "data_input", "NoneType", data_input=None, levels=IN_PYTHON),
    hybrid("no cfg path", InputError, "model_quantization_cfg", "list", cfg=["a"], levels=IN_PYTHON),
    hybrid("a folder", FileError, "m.model", "directory|folder", model_input=folder("m.model")),
    hybrid("the source model", FileError, "tiny.onnx", "step 1", model_input="tiny.onnx"),
    hybrid("another model", FileError, "bad.model", "not written together", model_input=other("tiny.model")),
    hybrid("another's data", FileError, "tiny.model", "not written together", data_input=other("tiny.data")),
    hybrid("another's cfg", QuantizationError, "bad.cfg", "may not be changed", cfg=other("tiny.quantization.cfg")),
    hybrid("data: empty", FileError, "bad.data", data_input=file("bad.data", b"")),
    hybrid("data: another zip", FileError, "bad.data", data_input=file("bad.data", b"PK\x05\x06" + bytes(18))),
    hybrid("data: a pickle", FileError, "bad.data", data_input=file("bad.data", pickle.dumps({"table": []}))),
    hybrid("data: a package", FileError, "bad.data", data_input=file("bad.data", package)),
    hybrid("data: truncated", FileError, "bad.data", data_input=stored("tiny.data", lambda data: data[:-100])),
    hybrid("data: forged", FileError, "bad.data",
           data_input=stored("tiny.data", lambda data: data.replace(b"minmax", b"maxmin", 1))),
    hybrid("model: one byte", FileError, "bad.model", "not written together",
           model_input=stored("tiny.model", lambda data: data.replace(b"scores", b"scored", 1))),
    hybrid("cfg: empty", QuantizationError, "bad.cfg", cfg=file("bad.cfg", b"")),
    hybrid("cfg: a picture", FileError, "bad.cfg", "UTF-8", cfg=file("bad.cfg", image("jpeg"))),
    hybrid("cfg: a list", QuantizationError, "bad.cfg", "mapping", cfg=file("bad.cfg", b"- relu\n")),
    hybrid("cfg: deep", QuantizationError, "bad.cfg", cfg=file("bad.cfg", b"[" * 5000)),
    hybrid("cfg: a call", QuantizationError, "bad.cfg", "line 2",
           cfg=file("bad.cfg", b"custom_quantize_layers:\n    relu: !!python/object/apply:os.system [ls]\n")),
    cfg("broken", "qtype: asym", "qtype: [asym", "line", "column"),
    wished("relo", "float16", "'relo'", "'relu'"),
    wished("w", "float16", "'w'"),
    wished("relu", "float8", "float8"),
    wished("relu", "float32", "float32", "float16"),
    wished("relu", "float16", "rv1106", "int16", target_platform="rv1106"),
    wished("relu", "", "precision"),
    cfg("min above max", "        min:\n        -   0.0", "        min:\n        -   1000.0", "min", "max", "line"),
    cfg("min not finite", "        min:\n        -   0.0", "        min:\n        -   .nan", "min", "line"),
    cfg("min a word", "        min:\n        -   0.0", "        min:\n        -   low", "min", "line"),
    cfg("another dtype", "dtype: int8", "dtype: int16", "dtype", "may not be changed", "line"),
    cfg("another method", "qmethod: layer", "qmethod: channel", "qmethod", "may not be changed", "line"),
    cfg("an unknown row", "    relu:\n", "    relo:\n", "'relo'", "'relu'"),
    cfg("two faults", "custom_quantize_layers: {}", "custom_quantize_layers: {relo: float16, relu: float8}",
        "2 faults", "'relo'", "float8"),
    row("step 1: dataset missing", "step1", DatasetError, "absent.txt", "does not exist", dataset="absent.txt"),
    row("step 1: no dataset", "step1", EngineError, "dataset", dataset=None, levels=IN_PYTHON),
    row("step 1: float16", "step1", EngineError, "leave out --float16", do_quantization=False, exit_code=2,
        levels=("cli",)),
    row("step 1: batch", "step1", ConfigError, "rknn_batch_size|--batch", "0", rknn_batch_size=0, exit_code=2),
    row("step 1: proposal 0", "step1", ConfigError, "proposal_dataset_size|--proposal", proposal=0, exit_code=2),
    row("step 1: proposal many", "step1", ConfigError, "many", proposal="many", exit_code=2),
]  # fmt: skip

REPAIR = [
    tuned("dataset missing", DatasetError, "absent.txt", "does not exist", dataset="absent.txt"),
    tuned("no dataset", InputError, "samples", "NoneType", dataset=None, levels=("session",)),
    tuned("damaged sample", DatasetError, "bad.txt line 2", dataset=listing("a.png", b"\x89PNG")),
    tuned("float16 build", EngineError, "float16", do_quantization=False, exit_code=2),
    tuned("float16 on rv1106", QuantizationError, "rv1106", "int16", precision="float16",
          config={"target_platform": "rv1106"}),
    tuned("int8", QuantizationError, "int8", "float16", precision="int8", exit_code=2),
    tuned("int4", QuantizationError, "int4", "float16", precision="int4", exit_code=2),
    *(
        tuned(f"{name} {value}", ConfigError, f"wish.{name}|--{name}|--max-{name}", str(value),
              wish={name: value}, exit_code=2)
        for name, values in {
            "cosine": (0, 1.5, -0.5, float("nan"), "high"),
            "cost": (-0.1, float("inf"), "cheap"),
            "layers": (0, -1, 2.5, "few"),
        }.items()
        for value in values
    ),
    row("lint: dataset missing", "lint", DatasetError, "absent.txt", dataset="absent.txt", levels=("session", "cli")),
    row("lint: sample missing", "lint", EngineError, "absent.png", "does not exist", sample=["absent.png"],
        levels=("session", "cli")),
    row("lint: sample NaN", "lint", DatasetError, "bad.npy", "1 of 192", sample=npy(WITH_NAN),
        levels=("session", "cli")),
    row("lint: sample of two", "lint", DatasetError, "1 path", "2", sample=["0.png", "1.png"],
        levels=("session", "cli")),
]  # fmt: skip

TABLE = {"model": MODELS, "cut": CUTS, "setting": SETTINGS, "dataset": DATASETS, "result": RESULTS, "input": INPUTS,
         "hybrid": HYBRID, "repair": REPAIR}  # fmt: skip
ROWS = {f"{subject}: {r.name}": r for subject, rows in TABLE.items() for r in rows}
assert len(ROWS) == sum(map(len, TABLE.values())), "two rows have one name"
