"""The published figures of the chips: complete, sourced, and consistent with each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cost.figures import FIGURES, SUSTAINED, ChipFigures
from engine.targets import TARGETS

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
# Bytes that memory moves in a cycle in the tables of the vendor's compiler, where its own chip set them.
BYTES_A_CYCLE = {"rk3588": 23.654, "rk3566": 6.571, "rv1106": 6.159}


@pytest.fixture(params=sorted(TARGETS))
def chip(request: pytest.FixtureRequest) -> ChipFigures:
    return FIGURES[request.param]


def test_every_target_has_its_figures() -> None:
    assert set(FIGURES) == set(TARGETS)
    assert all(one.target == name for name, one in FIGURES.items())


def test_every_number_has_a_source(chip: ChipFigures) -> None:
    rows = chip.table()
    assert len({name for name, *_ in rows}) == len(rows)
    for name, value, _, source in rows:
        assert value >= 0, name
        assert len(source) > 10, name
    assert {"NPU clock", "memory bandwidth", "NPU cores"} <= {name for name, *_ in rows}


def test_every_precision_has_multipliers_and_none_more_than_int8(chip: ChipFigures) -> None:
    assert set(chip.macs) == set(TARGETS[chip.target].precisions)
    assert all(chip.macs["int8"].value >= figure.value > 0 for figure in chip.macs.values())


def test_published_performance_is_what_the_multipliers_do_or_the_source_says_why_not(chip: ChipFigures) -> None:
    ratio = chip.peak_tops.value / chip.tops.value
    assert 0.9 < ratio < 1.1 or "than the" in chip.tops.source
    assert 0.6 < ratio < 1.2


def test_what_the_compiler_takes_memory_to_sustain_follows_from_clock_and_bus() -> None:
    for name, moved in BYTES_A_CYCLE.items():
        chip = FIGURES[name]
        gigabytes = moved * chip.clock_mhz.value / 1000
        assert gigabytes / chip.bandwidth_gbs.value == pytest.approx(SUSTAINED.value, rel=2e-4)


def test_what_is_assumed_says_so(chip: ChipFigures) -> None:
    assert chip.processor_gbs.assumed
    assert chip.run_us.assumed
    assert not chip.clock_mhz.assumed or chip.target == "rv1103"
    assert not chip.memory_mhz.assumed
    assert chip.processor_gbs.value < chip.bandwidth_gbs.value


def test_the_readme_has_the_figures(chip: ChipFigures) -> None:
    row = readme_row(chip)
    assert row in README, f"the README's table of targets needs this row:\n{row}"


def test_the_apps_process_can_read_the_figures_alone() -> None:
    script = "import sys, engine.cost.figures; print({'numpy', 'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def readme_row(chip: ChipFigures) -> str:
    """The row of the README's table of targets."""
    precisions = "/".join(f"{chip.macs[name].value:.0f}" for name in ("int8", "int16"))
    floating = f"{chip.macs['float16'].value:.0f}" if "float16" in chip.macs else "none"
    cells = (
        chip.target.upper(),
        f"{chip.cores.value:.0f}",
        f"{chip.clock_mhz.value:.0f}",
        f"{precisions}/{floating}",
        f"{chip.tops.value:.1f}",
        f"{chip.memory} {chip.memory_bits.value:.0f} bit",
        f"{chip.bandwidth_gbs.value:.1f}",
        "?" if chip.sram_kb is None else f"{chip.sram_kb.value:.0f}",
    )
    return f"| {' | '.join(cells)} |"
