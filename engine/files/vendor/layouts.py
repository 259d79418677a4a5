"""The tables of vendor's files and the numbers in them, as far as they are known; no schema of them is public."""

from __future__ import annotations

from engine.flatbuffers import Fields, fields


def _tables(**texts: str) -> dict[str, Fields]:
    return {name: fields(text) for name, text in texts.items()}


_NODE = "-, op string, name string, target byte, inputs [int], outputs [int]"
_NORMALIZATION = "mean [float], std [float], order [int]"

FULL = _tables(
    Model="schema int, engine string, graphs [Graph], build string, early_blobs [Blob], -, number int, compiler string,"
    "target string, framework string, -, custom string, inputs string, outputs string, -, -, shapes string, -, -,"
    "memory Memory, blobs [Blob]",
    Memory="weights ulong, internal ulong",
    Blob="data length",
    Graph="tensors [Tensor], nodes [Node], inputs [int], outputs [int], normalization [Normalization]",
    Normalization=_NORMALIZATION,
    Tensor="dtype byte, layout byte, kind byte, native [int], shape [int], name string, -, -, minimum [float],"
    "maximum [float], scale [float], zero_point [int], bytes uint, offset uint, -, -, -, -, blob uint",
    Node=_NODE + ", -, -, -, -, tasks [int]",
)
"""Of files for RK35xx."""

MINI = _tables(
    Model="schema int, engine string, graphs [Graph], build string, number int, compiler string, target string,"
    "framework string, custom string",
    Graph="tensors [Tensor], nodes [Node], inputs [int], outputs [int], normalization [Normalization]",
    Normalization=_NORMALIZATION,
    Tensor="dtype byte, layout byte, kind byte, native [int], shape [int], name string, scale [float],"
    "zero_point [int], bytes uint, offset uint",
    Node=_NODE,
)
"""Of files for RV1103 and RV1106."""

DTYPES = {
    0: "",
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    64: "int4",
}
KINDS = {
    0: "",
    1: "input",
    2: "output",
    3: "virtual",
    4: "weight",
    5: "constant",
    6: "look-up table",
    7: "register commands",
    8: "operator data",
    9: "register commands",
    10: "tasks",
}
LAYOUTS = {0: "plain", 64: "NC1HWC2", 65: "packed weight"}
CORES = {1: ((0, 1),), 3: ((0, 1), (1, 3)), 6: ((0, 1), (1, 3), (3, 6))}
"""Where a node's task counts lie, by how many there are: of each core when the node runs on one, on two, on three."""
NPU = 2
"""A node's target; without one it runs on the CPU."""
