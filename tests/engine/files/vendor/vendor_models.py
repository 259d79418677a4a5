"""Models such as the vendor's compiler makes, small or drawn by chance, to be written into files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hypothesis import strategies as st

from engine.files.vendor.layouts import DTYPES, KINDS, LAYOUTS
from engine.files.vendor.model import (
    Normalization,
    VendorMemory,
    VendorModel,
    VendorNode,
    VendorPort,
    VendorTensor,
)
from tests.engine.files.vendor.vendor_files import flatbuffer, full, full_slots, mini

DUMMY = VendorTensor("", (), "float32", "", "plain")
"""The first tensor of every file, which nothing uses."""


def port(tensors: tuple[VendorTensor, ...], place: int, dtype: str = "", layout: str = "nchw") -> VendorPort:
    """An input or output of the model that is a tensor."""
    one = tensors[place]
    numbers = one.scale, one.zero_point, one.minimum, one.maximum
    return VendorPort(one.name, one.shape, dtype or one.dtype, layout, one.dtype, one.native, *numbers, place)


def small() -> VendorModel:
    """A convolution, a step on the CPU, an addition of both, and what the compiler puts around them."""
    grid = {"scale": (0.5,), "zero_point": (-3,), "minimum": (-62.5,), "maximum": (65.0,)}
    feature = (1, 1, 8, 8, 16)
    tensors = (
        DUMMY,
        VendorTensor("x", (1, 3, 8, 8), "int8", "input", "plain", (1, 1, 8, 8, 3), 256, 0, **grid),
        VendorTensor("w", (8, 3, 3, 3), "int8", "weight", "packed weight", (1, 1, 3, 3, 8, 16), 1152, 0, 1152),
        VendorTensor("b", (8,), "int32", "constant", "plain", (8,), 32, 0, 32),
        VendorTensor("c", (1, 8, 8, 8), "int8", "virtual", "NC1HWC2", feature, 1024, 256, **grid),
        VendorTensor("s", (1, 8, 8, 8), "float16", "virtual", "NC1HWC2", feature, 2048, 1280),
        VendorTensor("y", (1, 8, 8, 8), "int8", "output", "NC1HWC2", feature, 1024, 3328, **grid),
        VendorTensor("commands", (), "uint64", "register commands", "plain", (), 0, 0, 800),
        VendorTensor("tasks", (), "uint8", "tasks", "plain", (), 0, 0, 120),
        VendorTensor("c_data", (8, 8, 1, 1), "int8", "operator data", "packed weight", (1, 1, 1, 1, 8, 8), 96, 0, 96),
    )
    nodes = (
        VendorNode("InputOperator", "InputOperator:x", "cpu", (), (1,)),
        VendorNode("ConvRelu", "Conv:conv_a", "npu", (1, 2, 3), (4,), 3),
        VendorNode("Softmax", "Softmax:soft", "cpu", (4,), (5,)),
        VendorNode("Add", "Add:sum", "npu", (4, 5), (6,)),
        VendorNode("OutputOperator", "OutputOperator:y", "cpu", (6,), ()),
    )
    return VendorModel(
        path="",
        file_bytes=0,
        container="container",
        revision=6,
        family="full",
        engine="RKNPU v2",
        compiler="2.5.0",
        compiler_text="TOOLKIT(compiler version: 2.5.0 (0123abcd@2026-01-01))",
        target="rk3588",
        framework="ONNX",
        custom_string="Zürich 42",
        shapes="static_shape",
        input_shapes=(((1, 3, 8, 8),),),
        inputs=(port(tensors, 1, "int8", "nhwc"),),
        outputs=(port(tensors, 6, "int8"),),
        normalization=(Normalization((127.5, 127.5, 127.5, 127.5), (128.0, 128.0, 128.0, 128.0), (2, 1, 0, 3)),),
        nodes=nodes,
        tensors=tensors,
        memory=VendorMemory(1216, 4352, 800, 120, 96),
        build_info={"attrs": {"x": {"idx": 0, "shape": [1, 3, 8, 8], "rgb2bgr": True, "mean": [127.5]}}},
    )


def as_mini(model: VendorModel) -> VendorModel:
    """What a file for RV1103 or RV1106 keeps of a model."""
    tensors = tuple(dataclasses.replace(one, stored=0, minimum=(), maximum=()) for one in model.tensors)

    def ports(given: tuple[VendorPort, ...]) -> tuple[VendorPort, ...]:
        return tuple(port(tensors, one.tensor or 0, layout="") for one in given)

    return dataclasses.replace(
        model,
        revision=4,
        family="mini",
        engine="RKNPU t3",
        target="rv1106",
        shapes="",
        input_shapes=model.input_shapes[:1],
        tensors=tensors,
        nodes=tuple(dataclasses.replace(node, cores=1) for node in model.nodes),
        inputs=ports(model.inputs),
        outputs=ports(model.outputs),
    )


def as_early(model: VendorModel, revision: int) -> VendorModel:
    """What a file of revision 1 or 2 keeps of a model, its memory counted from its tensors."""
    held = [one.bytes for one in model.tensors if one.kind in ("weight", "constant")]
    between = [one.offset + one.bytes for one in model.tensors if one.kind in ("input", "output", "virtual")]
    memory = dataclasses.replace(
        model.memory,
        weights=sum((size + 63) // 64 * 64 for size in held),
        internal=max(between, default=0),
        counted=True,
    )
    return dataclasses.replace(model, revision=revision, shapes="", memory=memory)


def examples() -> dict[str, bytes]:
    """A small file of every layout."""
    model = small()
    return {
        "revision 6": full(model),
        "revision 2": full(model, 2),
        "revision 1": full(model, 1),
        "mini": mini(as_mini(model)),
        "flatbuffer": flatbuffer(full_slots(model)),
    }


def placed(model: VendorModel, path: Path) -> VendorModel:
    """The model as read from a file."""
    return dataclasses.replace(model, path=str(path), file_bytes=path.stat().st_size)


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\N{REPLACEMENT CHARACTER}"), max_size=12)
_SIZES = st.lists(st.integers(0, 1 << 31 - 1), max_size=6).map(tuple)
_REAL = st.floats(width=32, allow_nan=False)
_REALS = st.lists(_REAL, max_size=3).map(tuple)
_WHOLE = st.integers(0, (1 << 32) - 1)


@st.composite
def tensors(draw: st.DrawFn) -> VendorTensor:
    """Any tensor that a file can hold."""
    return VendorTensor(
        draw(_TEXT),
        draw(_SIZES),
        draw(st.sampled_from(sorted(DTYPES.values()))),
        draw(st.sampled_from(sorted(set(KINDS.values())))),
        draw(st.sampled_from(sorted(LAYOUTS.values()))),
        draw(_SIZES),
        draw(_WHOLE),
        draw(_WHOLE),
        draw(st.integers(0, 300)),
        draw(st.lists(st.floats(0, width=32, allow_infinity=False), max_size=3).map(tuple)),
        draw(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=3).map(tuple)),
        draw(_REALS),
        draw(_REALS),
    )


@st.composite
def models(draw: st.DrawFn) -> VendorModel:
    """Any model that a file of the newest revision can hold, whether it makes sense or not."""
    drawn = draw(st.lists(tensors(), min_size=1, max_size=5))
    # How a program hands over inputs is told by their names.
    found = (DUMMY, *(dataclasses.replace(one, name=f"{index}{one.name}") for index, one in enumerate(drawn)))
    places = st.integers(0, len(found) - 1)
    indices = st.lists(places, max_size=4).map(tuple)
    nodes = st.builds(
        VendorNode, _TEXT.filter(bool), _TEXT, st.sampled_from(("npu", "cpu")), indices, indices, st.integers(1, 3)
    )
    inputs, outputs = draw(st.lists(places, max_size=3)), draw(st.lists(places, max_size=3))
    norm = st.builds(Normalization, _REALS, _REALS, st.lists(st.integers(0, 3), max_size=4).map(tuple))
    kinds = ("register commands", "tasks", "operator data")
    stored = [sum(one.stored for one in found if one.kind == kind) for kind in kinds]
    return VendorModel(
        path="",
        file_bytes=0,
        container="container",
        revision=6,
        family="full",
        engine=draw(_TEXT),
        compiler=".".join(str(draw(st.integers(low, 99))) for low in (1, 0, 0)),
        compiler_text=draw(_TEXT),
        target=draw(_TEXT.filter(bool)),
        framework=draw(_TEXT.filter(bool)),
        custom_string=draw(_TEXT),
        shapes=draw(_TEXT),
        input_shapes=(
            tuple(found[place].shape for place in inputs),
            *draw(st.lists(st.lists(_SIZES, max_size=3).map(tuple), max_size=2)),
        ),
        inputs=tuple(port(found, place) for place in inputs),
        outputs=tuple(port(found, place) for place in outputs),
        normalization=tuple(draw(norm) for _ in inputs) if draw(st.booleans()) else (),
        nodes=tuple(draw(st.lists(nodes, max_size=4))),
        tensors=found,
        memory=VendorMemory(draw(st.integers(0, 5000)), draw(_WHOLE), *stored),
        build_info=draw(
            st.dictionaries(
                _TEXT,
                st.recursive(
                    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | _REAL.filter(_finite) | _TEXT,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
                    max_leaves=6,
                ),
                max_size=3,
            )
        ),
    )


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
