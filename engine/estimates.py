"""Plain data: what a model and its layers are estimated to take on a chip.

Nothing here imports numpy or ONNX, so that a process which only displays results stays small.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class LayerEstimate:
    """What one layer is estimated to take on a chip; nothing of it was measured.

    `precision` is as in LayerSummary. `in_shapes` are the shapes of what it reads: activations, then weights and biases
    as the toolkit's tables have them, then what it adds. `macs` are its multiply-accumulates without padding.
    `cycles_npu` are those of the multipliers, `cycles_ddr` those of memory, which work at the same time; `cycles_total`
    is until the slower is done. `time_us` is microseconds of one inference. `bytes_read` and `bytes_written` go over
    the memory bus, weights included. `bound` is what it waits for: 'compute', 'memory', or 'cpu' where the processor
    computes it, '' where nothing is to be done. `certainty` is 'high' where the formula meets the toolkit's own tables,
    'medium' where bytes are counted from first principles, 'low' where even the place is assumed. `utilisation` is the
    share (0..1) of the multipliers' work in `cycles_total` that is not padding. `weight_bytes` are its constants as
    stored, `memory_bytes` all tensors in use while it runs.
    """

    name: str
    op: str
    precision: str
    in_shapes: tuple[tuple[int, ...], ...]
    out_shapes: tuple[tuple[int, ...], ...]
    macs: int
    cycles_npu: int
    cycles_ddr: int
    cycles_total: int
    time_us: float
    bytes_read: int
    bytes_written: int
    bound: str
    certainty: str
    utilisation: float = 0.0
    weight_bytes: int = 0
    memory_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryBlock:
    """Where a tensor lies in the chip's memory between layers: bytes from `offset` on, from layer `first` to `last`
    (places in execution order, both included)."""

    tensor: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Estimated memory of a model on a chip, in bytes: weights as stored, tensors between layers, and both.

    `lower_bound` is the most that is in use at once: no plan needs less internal memory than that. `blocks` is the
    plan, whose end is `internal_bytes`.
    """

    weight_bytes: int
    internal_bytes: int
    total_bytes: int
    lower_bound: int
    blocks: tuple[MemoryBlock, ...]


@dataclasses.dataclass(frozen=True)
class CostTotals:
    """Sums over all layers, in the units of LayerEstimate.

    `overhead_us` is what an inference takes beside its layers' cycles: to start it, and each layer of the NPU. It is
    less certain than the cycles. `latency_us` is both together, and `fps` the samples a second at that latency, one
    inference after the other.
    """

    macs: int
    cycles_npu: int
    cycles_ddr: int
    cycles_total: int
    time_us: float
    fps: float
    bytes_read: int
    bytes_written: int
    weight_bytes: int
    internal_bytes: int
    overhead_us: float = 0.0
    latency_us: float = 0.0


@dataclasses.dataclass(frozen=True)
class ModelEstimate:
    """What a model is estimated to take on a chip. `kind` is always 'estimate': nothing of it was measured.

    `built` is the precision of the model ('int8', 'float16', ...). `cores` work on one inference of `batch` samples at
    `clock_mhz`. `notes` are what a person should know of the figures.
    """

    kind: str
    target: str
    built: str
    cores: int
    batch: int
    clock_mhz: float
    layers: tuple[LayerEstimate, ...]
    totals: CostTotals
    memory: MemoryEstimate
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class LayerCost:
    """The few of LayerEstimate's numbers that a row shows, and `times`: its microseconds in each precision of the
    target, in the target's order, its neighbours as they are; empty for layers of integers."""

    time_us: float
    memory_bytes: int
    bound: str = ""
    times: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelCosts:
    """Estimated costs by layer on one target, in execution order, and their totals."""

    target: str
    layers: dict[str, LayerCost]
    totals: CostTotals
