"""What one layer takes on a chip in a given precision, apart from conversions between precisions.

Convolutions follow the toolkit's own formulas. Of other layers its tables tell what they read and nothing else: they
are counted by the bytes that they move and one block of channels a cycle, which is an assumption.
"""

from __future__ import annotations

import dataclasses
import math

from engine.cost.chips import WIDTHS, Chip, chip_of, rounded, width
from engine.cost.convolution import Convolution, Moved, moved, multiplier_cycles
from engine.cost.figures import FIGURES
from engine.cost.placement import Place, on_several_cores, placed
from engine.cost.work import LayerWork, Shape
from engine.targets import Target

HIGH, MEDIUM, LOW = "high", "medium", "low"


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cycles of the NPU's clock and bytes of one layer, as LayerEstimate has them."""

    npu: int
    memory: int
    total: int
    read: int
    written: int
    macs: int
    bound: str
    certainty: str


@dataclasses.dataclass(frozen=True)
class Machine:
    """A target with so many of its cores at work on one inference of `batch` samples."""

    target: Target
    cores: int = 1
    batch: int = 1

    @property
    def chip(self) -> Chip:
        """The multipliers and memory of the target's NPU."""
        return chip_of(self.target)

    @property
    def clock_mhz(self) -> float:
        """The NPU's clock: cycles in a microsecond."""
        return FIGURES[self.target.name].clock_mhz.value

    def memory_cycles(self, moved_bytes: int) -> int:
        """Cycles until so many bytes have gone over the bus, which all cores share."""
        return math.ceil(moved_bytes / self.chip.bytes_a_cycle)


def layer_cost(work: LayerWork, precision: str, writes: str, machine: Machine) -> Cost:
    """The cost of a layer whose main step computes in `precision` and whose output is stored in `writes`, '' for
    integers. Where the NPU cannot do it, the processor does."""
    where, chip = _place(work, precision, machine), machine.chip
    if work.kind == "nothing":
        return Cost(0, 0, 0, 0, 0, 0, "", HIGH)
    found, macs = _moved(work, precision, writes, machine), work.macs * machine.batch
    if where == "cpu":
        return _on_processor(found, macs, machine)
    cores = machine.cores if on_several_cores(work.layer.op, machine.target.name) else 1
    if work.stages and precision in WIDTHS:
        return _in_stages(work, precision, machine)
    npu = -(-_multiplying(work, precision, machine) // cores)
    memory = machine.memory_cycles(found.read + found.written)
    total = max(npu, memory)
    bound = "" if not total else "compute" if npu >= memory else "memory"
    known = work.convolution is not None and work.convolution.weighed and chip.array(precision) is not None
    certainty = LOW if where == "unknown" else HIGH if known and machine.batch == cores == 1 else MEDIUM
    return Cost(npu, memory, total, found.read, found.written, macs, bound, certainty)


def feature_bytes(shape: Shape, precision: str, chip: Chip) -> int:
    """Bytes of a tensor between layers; the channels of a feature map (four dimensions) are padded to blocks."""
    numbers = math.prod(shape)
    if len(shape) == 4 and precision in WIDTHS:
        numbers = shape[0] * rounded(shape[1], chip.channel_block(precision)) * shape[2] * shape[3]
    return numbers * width(precision)


def _place(work: LayerWork, precision: str, machine: Machine) -> Place:
    if work.layer.on_processor or (precision in WIDTHS and machine.chip.array(precision) is None):
        return "cpu"
    if work.kind in ("convolution", "nothing"):
        return "npu"
    return placed(work.main.op_type, precision, machine.target.name, work.facts)


def _moved(work: LayerWork, precision: str, writes: str, machine: Machine) -> Moved:
    chip, batch, shapes = machine.chip, machine.batch, work.read_shapes
    if work.convolution is not None and precision in WIDTHS:
        whole = dataclasses.replace(work.convolution, batch=work.convolution.batch * batch)
        found = moved(whole, precision, chip)
        # What is stored in another precision than it was computed in was rounded on its way out.
        share = WIDTHS.get(writes, WIDTHS[precision]) / WIDTHS[precision]
        extra = work.constants * WIDTHS[precision]
        return Moved(found.read + extra, round(found.written * share), found.weights + extra)
    constants = work.constants * width(precision)
    read = sum(feature_bytes(shape, precision if floats else "", chip) for shape, floats in shapes)
    written = sum(feature_bytes(shape, writes, chip) for shape in work.out_shapes)
    return Moved(read * batch + constants, written * batch, constants)


def _in_stages(work: LayerWork, precision: str, machine: Machine) -> Cost:
    """The cost of convolutions one after the other."""
    batch = machine.batch
    costs = [_stage(dataclasses.replace(one, batch=one.batch * batch), precision, machine) for one in work.stages]
    npu, memory, read, written = (sum(numbers) for numbers in zip(*(cost[:4] for cost in costs), strict=True))
    total = sum(max(cost[0], cost[1]) for cost in costs)
    bound = "compute" if npu >= memory else "memory"
    return Cost(npu, memory, total, read, written, 0, bound, HIGH if batch == 1 else MEDIUM)


def _stage(convolution: Convolution, precision: str, machine: Machine) -> tuple[int, int, int, int]:
    found = moved(convolution, precision, machine.chip)
    memory = machine.memory_cycles(found.read + found.written)
    return multiplier_cycles(convolution, precision, machine.chip), memory, found.read, found.written


def _multiplying(work: LayerWork, precision: str, machine: Machine) -> int:
    chip, batch = machine.chip, machine.batch
    array = chip.array(precision) or chip.arrays["int8"]
    if work.convolution is not None:
        whole = dataclasses.replace(work.convolution, batch=work.convolution.batch * batch)
        return multiplier_cycles(whole, precision, chip)
    if work.kind == "recurrent":
        return -(-work.macs * batch // array.macs)
    if work.kind in ("movement", "nothing") or precision not in WIDTHS:
        return 0
    # One block of channels a cycle, for each position of a window.
    out = sum(_channel_blocks(shape, array.outputs) for shape in work.out_shapes)
    return out * work.window * batch


def _channel_blocks(shape: Shape, block: int) -> int:
    if len(shape) == 4:
        return shape[0] * -(-shape[1] // block) * shape[2] * shape[3]
    return -(-math.prod(shape) // block)


def _on_processor(found: Moved, macs: int, machine: Machine) -> Cost:
    figures = FIGURES[machine.target.name]
    microseconds = figures.processor_us.value + (found.read + found.written) / (figures.processor_gbs.value * 1e3)
    return Cost(0, 0, round(microseconds * machine.clock_mhz), found.read, found.written, macs, "cpu", LOW)
