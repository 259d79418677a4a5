"""What a file of the vendor's compiler tells, as plain data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.summaries import ModelSummary

INPUT, OUTPUT, WEIGHT, CONSTANT = "input", "output", "weight", "constant"
"""Kinds of tensors that others than their reader ask for."""


@dataclasses.dataclass(frozen=True, slots=True)
class VendorTensor:
    """A tensor of the compiled graph.

    `shape` is the source model's (NCHW, OIHW); `native` what the NPU has it in, for a feature map [N, C1, H, W, C2],
    for packed weights one or more times six sizes. `kind`: 'input', 'output', 'virtual' (between nodes), 'weight',
    'constant', 'look-up table', 'operator data', 'register commands', 'tasks', or 'kind N'. `layout`: 'plain',
    'NC1HWC2', 'packed weight', or 'layout N'. `dtype` as numpy calls it, or 'type N'. `bytes` and `offset` are its
    place in the plan of the memory between nodes; `stored` the bytes that the file holds of it. Real value =
    (q - zero_point) * scale; `minimum` and `maximum` are the range that these came from, which the files for RV1103
    and RV1106 do not hold.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    layout: str
    native: tuple[int, ...] = ()
    bytes: int = 0
    offset: int = 0
    stored: int = 0
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class VendorNode:
    """A step of the compiled graph. `target` is 'npu' or 'cpu'; `inputs` and `outputs` are indices of tensors; `cores`
    is how many cores of the NPU share it when the runtime may use all."""

    op: str
    name: str
    target: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cores: int = 1


@dataclasses.dataclass(frozen=True)
class VendorPort:
    """An input or output of the model.

    `tensor` is its index; `dtype` and `layout` ('nchw', 'nhwc' or '') are how a program hands it over, where the file
    tells, while `native_dtype` and `native` are the NPU's own. The rest is as in VendorTensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    native_dtype: str = ""
    native: tuple[int, ...] = ()
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    tensor: int | None = None


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What the runtime does to an input before the network: (x - mean) / std by channel, its channels in `order`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class VendorMemory:
    """Bytes that the model takes on a board, and bytes that the file holds for the NPU alone.

    `weights` and `internal` (tensors between nodes) are the compiler's own figures, or counted from the tensors where
    the file has none (`counted`). None: not told. `operator_data` is what some operators have besides their weights,
    which the compiler does not count among them. The compiler prints up to 2 % less for weights, without their padding.
    """

    weights: int | None = None
    internal: int | None = None
    register_commands: int = 0
    tasks: int = 0
    operator_data: int = 0
    counted: bool = False


@dataclasses.dataclass(frozen=True)
class VendorModel:
    """A file of the vendor's compiler. It runs on a board of its target only; nothing here can run or change it.

    `container` is 'container', or 'flatbuffer' for a bare one; `revision` the layout's (0 where there is no container);
    `family` 'full' (RK35xx), 'mini' (RV1103, RV1106) or 'unknown'. `engine` is the NPU's name, `compiler` the version
    ('2.5.0'), `compiler_text` what the compiler calls itself. A file for several shapes holds a graph for each:
    `input_shapes` are those of all inputs, by graph; all else is of the first. `normalization` has one entry for each
    input, or none. `build_info` is what the compiler noted of the build. `partial` says what could not be read, empty
    where all was.
    """

    path: str
    file_bytes: int
    container: str
    revision: int
    family: str
    engine: str = ""
    compiler: str = ""
    compiler_text: str = ""
    target: str = ""
    framework: str = ""
    custom_string: str = ""
    shapes: str = ""
    input_shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    inputs: tuple[VendorPort, ...] = ()
    outputs: tuple[VendorPort, ...] = ()
    normalization: tuple[Normalization, ...] = ()
    nodes: tuple[VendorNode, ...] = ()
    tensors: tuple[VendorTensor, ...] = ()
    memory: VendorMemory = VendorMemory()
    build_info: dict[str, Any] = dataclasses.field(default_factory=dict)
    partial: tuple[str, ...] = ()

    def summary(self) -> ModelSummary:
        """The same as models of every kind are shown by, with layers and their edges."""
        from engine.files.vendor.summary import summary_of

        return summary_of(self)
