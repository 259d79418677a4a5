"""The published figures of each chip, every number with its source: NPU cores and clock, memory, SRAM, processor.

A source that begins with 'derived' or 'assumed' is no publication: it says how the number was come by.

The vendor's compiler counts memory in bytes that move in a cycle of one NPU core. Times `clock_mhz` that is 70.0 % of
the memory's peak on rk3588 (23.654 bytes), rk3566 (6.571) and rv1106 (6.159), to four digits: so its tables take these
clocks and these buses, and 70 % of what they can do. The 7.465 of rk3562 is 70.0 % of a memory at 1333 MHz, 60 % of the
one here. rk3576 has the same 7.465, and rk3568 and rv1103 have what rk3566 and rv1106 have; that is 42 %, 47 % and 70 %
of their peaks.

Nothing here imports numpy or ONNX, so that a process which only displays results stays small.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it is from."""

    value: float
    source: str

    @property
    def assumed(self) -> bool:
        """Whether nobody published it, nor what it follows from."""
        return self.source.startswith("assumed")


@dataclasses.dataclass(frozen=True)
class ChipFigures:
    """The figures of one chip.

    cores: NPU cores. tops: tera-operations a second in int8 as published, of all cores; a multiply-accumulate is two.
    clock_mhz: of the NPU, the highest that the vendor's Linux sets by itself. benchmark_mhz: the same when the vendor
    measured the frame rates of its model zoo. macs: multiply-accumulates of one core in a cycle, by precision.
    memory: its kind. memory_mhz: its clock, at both of whose edges it transfers. memory_bits: the width of its bus.
    sram_kb: on-chip memory that the NPU may be given for tensors; buffer_kb: what each core has for itself; None where
    nothing was found about it. processor: the kind of its fastest cores. processor_cores, processor_mhz: how many of
    them there are, and their clock. processor_gbs: gigabytes a second that a layer on the processor reads and writes.
    processor_us: microseconds that such a layer takes at least. layer_us: microseconds that a layer on the NPU takes
    beside its cycles. run_us: microseconds of an inference beside its layers.
    """

    target: str
    cores: Figure
    tops: Figure
    clock_mhz: Figure
    benchmark_mhz: Figure
    macs: dict[str, Figure]
    memory: str
    memory_mhz: Figure
    memory_bits: Figure
    sram_kb: Figure | None
    buffer_kb: Figure | None
    processor: str
    processor_cores: Figure
    processor_mhz: Figure
    processor_gbs: Figure
    processor_us: Figure
    layer_us: Figure
    run_us: Figure

    @property
    def bandwidth_gbs(self) -> Figure:
        """Peak of the memory, in gigabytes (1e9 bytes) a second."""
        peak = 2 * self.memory_mhz.value * self.memory_bits.value / 8 / 1000
        return Figure(peak, "derived: two transfers a memory clock over the width of the bus")

    @property
    def peak_tops(self) -> Figure:
        """What the multipliers of all cores do in int8 at `clock_mhz`, in tera-operations a second."""
        peak = 2 * self.macs["int8"].value * self.cores.value * self.clock_mhz.value / 1e6
        return Figure(peak, "derived: two operations a multiply-accumulate, times cores and clock")

    def table(self) -> tuple[tuple[str, float, str, str], ...]:
        """All figures: what it is, its value, its unit, its source; what is not known is left out."""
        rows: list[tuple[str, Figure | None, str]] = [
            ("NPU cores", self.cores, ""),
            ("published performance in int8", self.tops, "TOPS"),
            ("performance in int8 at this clock", self.peak_tops, "TOPS"),
            ("NPU clock", self.clock_mhz, "MHz"),
            ("NPU clock of the vendor's benchmark", self.benchmark_mhz, "MHz"),
            *((f"multiply-accumulates a cycle in {name}", figure, "") for name, figure in self.macs.items()),
            (f"memory clock, {self.memory}", self.memory_mhz, "MHz"),
            ("memory bus", self.memory_bits, "bit"),
            ("memory bandwidth", self.bandwidth_gbs, "GB/s"),
            ("SRAM for the NPU", self.sram_kb, "KB"),
            ("buffer of an NPU core", self.buffer_kb, "KB"),
            (f"processor cores, {self.processor}", self.processor_cores, ""),
            ("processor clock", self.processor_mhz, "MHz"),
            ("a layer on the processor moves", self.processor_gbs, "GB/s"),
            ("a layer on the processor takes at least", self.processor_us, "µs"),
            ("a layer on the NPU takes beside its cycles", self.layer_us, "µs"),
            ("an inference takes beside its layers", self.run_us, "µs"),
        ]
        return tuple((name, figure.value, unit, figure.source) for name, figure, unit in rows if figure is not None)


_ZOO = "scaling_frequency.sh in Rockchip's rknn_model_zoo, which fixes clocks for its benchmark"
_KERNEL = "in Rockchip's Linux (as in armbian/linux-rockchip)"
_COMPILER = "derived: channels in and out that the compiler of RKNN-Toolkit2 2.5.0 counts for one cycle in its tables"
_MANUAL = "RK3588 TRM part 1, chapter 36.1"
_HALF = "assumed: half of int8"
_ALIKE = "assumed: as float16"

SUSTAINED = Figure(0.7, "derived: the compiler's bytes a cycle on rk3588, rk3566 and rv1106, as a share of the peak")
"""The share of `bandwidth_gbs` that the vendor's compiler takes the NPU to get."""

_PROCESSOR_US = Figure(
    60, "assumed: a Reshape of 1000 numbers took 61 µs in the vendor's printed eval_perf of mobilenet on RK3588"
)
_RUN_US = Figure(100, "assumed: models of one operator take 40 to 190 µs on an RK3588 in the README of wtwver/npu")


def _beside(microseconds: float, rate: float, cycles: str) -> Figure:
    """What a frame rate of mobilenetv2, in the benchmark of the model zoo, leaves for each of its 54 layers."""
    return Figure(
        microseconds,
        f"derived: {rate} frames a second of mobilenetv2-12 in the README of Rockchip's rknn_model_zoo, less {cycles} "
        "and 100 µs, for each of 54 layers; yolov5s_relu then comes out 5 to 15 % faster than in that table",
    )


def _moved(gigabytes: float, why: str) -> Figure:
    return Figure(gigabytes, f"assumed: {why}")


_SLOWER = "slower than the 0.6 GB/s assumed for rk3588 by the clock, and by half for a core that issues in order"
_WIDE = {
    "rk3562": {
        "int8": Figure(512, _COMPILER),
        "float16": Figure(256, _COMPILER),
        "int16": Figure(256, _ALIKE),
    },
    "rk3566": {
        "int8": Figure(512, _COMPILER),
        "float16": Figure(128, _COMPILER),
        "int16": Figure(128, _ALIKE),
    },
    "rk3576": {
        "int8": Figure(1024, _COMPILER),
        "float16": Figure(512, _COMPILER),
        "int16": Figure(512, _ALIKE),
    },
    "rk3588": {
        "int8": Figure(1024, _MANUAL + ": 1024 of each of three cores"),
        "float16": Figure(512, _MANUAL + ": 512 of each of three cores"),
        "int16": Figure(512, _MANUAL + ": 512 of each of three cores"),
    },
    "rv1106": {
        "int8": Figure(512, _COMPILER),
        "int16": Figure(256, _HALF),
    },
}

_RK3562 = ChipFigures(
    target="rk3562",
    cores=Figure(1, f"rk3562.dtsi {_KERNEL}: rknpu_mmu has one interrupt"),
    tops=Figure(1.0, "derived: 512 multiply-accumulates a cycle at 1000 MHz"),
    clock_mhz=Figure(1000, f"rk3562.dtsi {_KERNEL}, NPU operating points; RK3562J: 700"),
    benchmark_mhz=Figure(1000, _ZOO),
    macs=_WIDE["rk3562"],
    memory="LPDDR4X",
    memory_mhz=Figure(1560, f"rk3562.dtsi {_KERNEL}, dmc-opp-table; the same in {_ZOO}"),
    memory_bits=Figure(32, "derived: 70 % of such a bus at 1333 MHz are the compiler's bytes a cycle, as on rk3588"),
    sram_kb=None,
    buffer_kb=None,
    processor="Cortex-A53",
    processor_cores=Figure(4, f"rk3562.dtsi {_KERNEL}, mask of the timer's interrupts; the kind of core is assumed"),
    processor_mhz=Figure(2000, _ZOO),
    processor_gbs=_moved(0.27, _SLOWER),
    processor_us=_PROCESSOR_US,
    layer_us=_beside(12, 281.3, "2.8 ms of the compiler's cycles"),
    run_us=_RUN_US,
)
_RK3568 = ChipFigures(
    target="rk3568",
    cores=Figure(1, f"rk3568.dtsi {_KERNEL}: one npu node with one interrupt"),
    tops=Figure(1.0, "RK3568 datasheet 1.2.2"),
    clock_mhz=Figure(
        900, f"rk3568.dtsi {_KERNEL}, npu-opp-table: the point of 1000 is there but disabled; RK3568J: 600"
    ),
    benchmark_mhz=Figure(1000, _ZOO),
    macs=_WIDE["rk3566"],
    memory="LPDDR4X",
    memory_mhz=Figure(1560, _ZOO),
    memory_bits=Figure(32, "assumed: as RK3566"),
    sram_kb=Figure(0, f"rk3568.dtsi {_KERNEL}: all of its 44 KB belong to the video decoder"),
    buffer_kb=None,
    processor="Cortex-A55",
    processor_cores=Figure(4, "RK3568 datasheet 1.2.1"),
    processor_mhz=Figure(1800, _ZOO),
    processor_gbs=_moved(0.24, _SLOWER),
    processor_us=_PROCESSOR_US,
    layer_us=_beside(37, 180.7, "3.4 ms of the compiler's cycles at 900 MHz"),
    run_us=_RUN_US,
)
_RK3566 = dataclasses.replace(
    _RK3568,
    target="rk3566",
    tops=Figure(
        0.8,
        "as announced, e.g. in KumaTea/pytorch-aarch64 issue 12; less than the multipliers do at this clock: it would "
        "be right for about 800 MHz",
    ),
    clock_mhz=Figure(900, f"rk3566.dtsi {_KERNEL} has the operating points of rk3568.dtsi; those of 1000 are disabled"),
    memory_mhz=Figure(1056, f"rk3566.dtsi {_KERNEL}, freq_0 of lpddr4x_params; the same in {_ZOO}"),
    memory_bits=Figure(32, "derived: 70 % of such a bus are the compiler's bytes a cycle, as on rk3588"),
    processor_cores=Figure(4, "KumaTea/pytorch-aarch64 issue 12"),
)
_RK3576 = ChipFigures(
    target="rk3576",
    cores=Figure(2, "rockchip,rk3576-power.h of Linux: power domains NPU0 and NPU1"),
    tops=Figure(
        6.0,
        "as announced, e.g. at cnblogs.com/armsom/p/18196724; more than the 1024 multiply-accumulates a core that the "
        "compiler counts: perhaps told for weights that are partly zero, which its tables have a column for",
    ),
    clock_mhz=Figure(950, "radxa/kernel issue 432: init-freq in rk3576.dtsi, the highest"),
    benchmark_mhz=Figure(1000, _ZOO),
    macs=_WIDE["rk3576"],
    memory="LPDDR4X",
    memory_mhz=Figure(2112, f"{_ZOO}; LPDDR5: up to 2736, rk3576.dtsi {_KERNEL}, dmc-opp-table"),
    memory_bits=Figure(32, "two channels of 16, in the comparison of datasheets at mynw.cn/server/9117.html"),
    sram_kb=None,
    buffer_kb=None,
    processor="Cortex-A72",
    processor_cores=Figure(4, f"rk3576.dtsi {_KERNEL}: pmu-a72; four Cortex-A53 beside them"),
    processor_mhz=Figure(2016, _ZOO),
    processor_gbs=_moved(0.5, "slower than the 0.6 GB/s assumed for rk3588 by the clock and one generation of cores"),
    processor_us=_PROCESSOR_US,
    layer_us=_beside(6, 467.0, "1.7 ms of cycles with 70 % of the memory's peak"),
    run_us=_RUN_US,
)
_RK3588 = ChipFigures(
    target="rk3588",
    cores=Figure(3, _MANUAL),
    tops=Figure(6.0, "wiki.t-firefly.com, iCore-3588Q, NPU usage"),
    clock_mhz=Figure(1000, f"rk3588s.dtsi {_KERNEL}, npu-opp-table; RK3588J and M: 950; 800 above 85 °C"),
    benchmark_mhz=Figure(1000, _ZOO),
    macs=_WIDE["rk3588"],
    memory="LPDDR4X",
    memory_mhz=Figure(2112, f"{_ZOO}; LPDDR5: up to 2750, rk3588s.dtsi {_KERNEL}, dmc-opp-table"),
    memory_bits=Figure(64, "RK3588 Brief Datasheet, block diagram: four channels of 16"),
    sram_kb=Figure(956, "RK3588_NPU_SRAM_usage.md in rockchip-linux/rknpu2: at most, where the device tree gives it"),
    buffer_kb=Figure(384, _MANUAL),
    processor="Cortex-A76",
    processor_cores=Figure(4, "RK3588 Brief Datasheet, block diagram; four Cortex-A55 beside them"),
    processor_mhz=Figure(2256, _ZOO),
    processor_gbs=_moved(
        0.6,
        "a layer of one's own took 6.6 ms beside its arithmetic for 1x256x64x64 numbers read and written, in "
        "airockchip/rknn-toolkit2 issue 32; 4.2 MB in float16",
    ),
    processor_us=_PROCESSOR_US,
    layer_us=_beside(15, 450.7, "1.3 ms of the compiler's cycles"),
    run_us=_RUN_US,
)
_RV1106 = ChipFigures(
    target="rv1106",
    cores=Figure(1, f"rv1106.dtsi {_KERNEL}: one npu node with one interrupt"),
    tops=Figure(
        0.5,
        "wiki.t-firefly.com, CT36L, NPU usage; more than the multipliers do at this clock: it would be right for about "
        "500 MHz; the RV1106G3 is sold with 1.0",
    ),
    clock_mhz=Figure(420, f"rv1106.dtsi {_KERNEL}, assigned-clock-rates of the npu node"),
    benchmark_mhz=Figure(500, _ZOO),
    macs=_WIDE["rv1106"],
    memory="DDR3L",
    memory_mhz=Figure(924, _ZOO),
    memory_bits=Figure(16, "derived: 70 % of such a bus are the compiler's bytes a cycle, as on rk3588"),
    sram_kb=Figure(0, f"rv1106.dtsi {_KERNEL}: its 256 KB belong to the image processor and a microcontroller"),
    buffer_kb=None,
    processor="Cortex-A7",
    processor_cores=Figure(1, f"rv1106.dtsi {_KERNEL}, cpus"),
    processor_mhz=Figure(1608, _ZOO),
    processor_gbs=_moved(0.2, _SLOWER),
    processor_us=_PROCESSOR_US,
    layer_us=Figure(40, "assumed: as rk3566, which has as few multipliers"),
    run_us=_RUN_US,
)
_RV1103 = dataclasses.replace(
    _RV1106,
    target="rv1103",
    cores=Figure(1, "assumed: the same chip as RV1106 with less memory and fewer pins"),
    tops=Figure(
        0.5,
        "luckfox-pico-mini-b_spec.htm in steward-fu/website; more than the multipliers do at this clock: it would be "
        "right for about 500 MHz",
    ),
    clock_mhz=Figure(420, "assumed: as RV1106, whose device tree boards with it build on"),
    memory="DDR2",
    processor_cores=Figure(1, "luckfox-pico-mini-b_spec.htm in steward-fu/website"),
)

FIGURES: dict[str, ChipFigures] = {
    one.target: one for one in (_RK3562, _RK3566, _RK3568, _RK3576, _RK3588, _RV1103, _RV1106)
}
"""The figures of each target, by its name in `engine.targets`."""
