"""Cycles and bytes of convolutions meet the toolkit's own tables, and grow with what there is to do."""

from __future__ import annotations

import collections
import csv
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cost.chips import chip_of
from engine.cost.convolution import Convolution, moved, multiplier_cycles
from engine.targets import TARGETS

TABLE = Path(__file__).parents[2] / "data" / "convolution_cycles.csv"
"""Lines of the tables that RKNN-Toolkit2 2.5.0 prints while it compiles models, without doubles: what it says of each
convolution's cycles, and of the kilobytes that it reads. `part` is 'group' for one group of a generated convolution,
'inner' for a convolution of three real models, whose output another layer reads."""


class Line(NamedTuple):
    target: str
    precision: str
    convolution: Convolution
    part: bool
    npu: int
    memory: int
    total: int
    read_kb: int

    def estimated(self) -> tuple[int, float, int]:
        """Cycles of the multipliers and of memory, and bytes read."""
        chip = chip_of(TARGETS[self.target])
        bytes_moved = moved(self.convolution, self.precision, chip)
        shared = self.convolution.groups if self.part else 1
        cycles = multiplier_cycles(self.convolution, self.precision, chip) // shared
        both = bytes_moved.read + bytes_moved.written
        return cycles, both / shared / chip.bytes_a_cycle, bytes_moved.read // shared


def lines() -> list[Line]:
    found = []
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            (batch, inputs, *size), (_, _, *kernel), (_, outputs, *out) = (
                [int(number) for number in row[key].split("x")] for key in ("input", "weight", "output")
            )
            transposed = row["op"] == "ConvTranspose"
            depthwise = row["weight"].startswith(f"1x{inputs}x") and inputs > 1 and not transposed
            # A group of a grouped convolution is a line of its own: it is judged as half of one with two.
            part = row["part"] == "group"
            added = row["op"] == "ConvAdd"
            convolution = Convolution(
                batch,
                inputs * (2 if part else 1),
                outputs * (2 if part else 1),
                math.prod(size),
                math.prod(out),
                math.prod(kernel),
                inputs if depthwise else 2 if part else 1,
                not added,
                added,
                given_out=not row["part"],
            )
            cycles = (int(row[f"cycles_{key}"]) for key in ("npu", "ddr", "total"))
            found.append(Line(row["target"], row["precision"], convolution, part, *cycles, int(row["read_kb"])))
    return found


LINES = lines()


def test_cycles_are_those_of_the_toolkits_tables() -> None:
    """Of every target and precision: equal cycles of the multipliers in 99 %, the total within 2 % in 95 %."""
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    equal, near = count.copy(), count.copy()
    for line in LINES:
        key = (line.target, line.precision)
        npu, memory, _ = line.estimated()
        count[key] += 1
        equal[key] += npu == line.npu
        near[key] += abs(max(npu, memory) - line.total) <= 0.02 * line.total
    assert len(count) == 5 and min(count.values()) > 150
    for key, total in count.items():
        assert equal[key] >= 0.99 * total, (key, equal[key], total)
        assert near[key] >= 0.99 * total, (key, near[key], total)


def test_bytes_are_those_of_the_toolkits_tables() -> None:
    memory_near = sum(abs(line.estimated()[1] - line.memory) <= 0.02 * line.memory for line in LINES)
    read_equal = sum(abs(line.estimated()[2] / 1024 - line.read_kb - 0.5) <= 0.52 for line in LINES)
    assert memory_near >= 0.97 * len(LINES)
    assert read_equal >= 0.95 * len(LINES)


CHIPS = st.sampled_from(sorted(TARGETS))
COUNTS = st.integers(1, 300)


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    inputs, outputs, kernel = draw(COUNTS), draw(COUNTS), draw(st.sampled_from([1, 3, 9, 25, 49]))
    positions = draw(st.integers(1, 5000))
    if draw(st.booleans()):
        return Convolution(1, inputs, inputs, positions, positions, kernel, groups=inputs)
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    return Convolution(1, inputs * groups, outputs * groups, positions, positions, kernel, groups)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(convolutions(), CHIPS, st.sampled_from(["output_positions", "kernel", "outputs", "inputs", "batch"]))
def test_more_to_multiply_never_takes_fewer_cycles(it: Convolution, name: str, more: str) -> None:
    target, chip = TARGETS[name], chip_of(TARGETS[name])
    step = it.groups if more in ("inputs", "outputs") and not it.depthwise else 1
    larger = dataclasses.replace(it, **{more: getattr(it, more) + step})
    if it.depthwise and more in ("inputs", "outputs"):
        more_channels = it.inputs + 1
        outputs = it.outputs // it.inputs * more_channels
        larger = dataclasses.replace(it, inputs=more_channels, outputs=outputs, groups=more_channels)
    assert larger.macs >= it.macs
    for precision in target.precisions:
        assert multiplier_cycles(larger, precision, chip) >= multiplier_cycles(it, precision, chip)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(convolutions(), CHIPS)
def test_int8_never_takes_more_than_a_wider_precision(it: Convolution, name: str) -> None:
    """But for windows of one position over few channels: there the tables themselves have more cycles for int8, which
    takes at least four steps for an output (rk3588, 1x1, 24 to 144 channels: 62720, in float16 56448)."""
    target, chip = TARGETS[name], chip_of(TARGETS[name])
    narrow, array = moved(it, "int8", chip), chip.arrays["int8"]
    few = not it.depthwise and it.kernel * (it.inputs // it.groups) < array.least * array.inputs
    for precision in target.precisions:
        wide = moved(it, precision, chip)
        assert few or multiplier_cycles(it, "int8", chip) <= multiplier_cycles(it, precision, chip)
        # The bias and scale of a channel take 8 bytes in int8 and 4 in float16.
        spare = 4 * (it.outputs + 4 * array.outputs)
        # How many convolutions a grouped one becomes depends on the precision.
        if it.groups == 1 or it.depthwise:
            assert narrow.read + narrow.written <= wide.read + wide.written + spare


@settings(max_examples=60, deadline=None, derandomize=True)
@given(convolutions(), CHIPS)
def test_the_multipliers_never_do_more_than_they_can(it: Convolution, name: str) -> None:
    chip = chip_of(TARGETS[name])
    for precision in TARGETS[name].precisions:
        array = chip.arrays[precision]
        most = array.depthwise if it.depthwise else array.macs
        assert it.macs <= most * multiplier_cycles(it, precision, chip)


@pytest.mark.parametrize("target", ["rk3566", "rk3588", "rv1106"])
def test_groups_run_apart_until_one_with_zeros_is_faster(target: str) -> None:
    chip = chip_of(TARGETS[target])
    whole = Convolution(1, 64, 64, 784, 784, 9)
    few, many = (multiplier_cycles(dataclasses.replace(whole, groups=groups), "int8", chip) for groups in (2, 32))
    assert few < multiplier_cycles(whole, "int8", chip) or target == "rk3588"
    assert many == multiplier_cycles(whole, "int8", chip)
