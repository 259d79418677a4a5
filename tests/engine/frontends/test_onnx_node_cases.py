"""What ONNX Runtime passes of the node test cases that define ONNX, the loaded and optimized graph passes as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import pytest

from engine.errors import EngineError
from tests.engine.frontends.node_cases import Case, cases, difference, expansions, run_loaded, run_plainly

_LOOP = "loops are not unrolled; an NPU runs a fixed list of layers"
_DATA_DEPENDENT = "how many boxes are left depends on the data, and an NPU needs every shape before it runs"
_EMPTY_INPUT = "the input has no elements: there is nothing for an NPU to read"
_EMPTY_OUTPUT = "an output has no elements: there is nothing for an NPU to compute"

OPERATORS: Mapping[str, str] = {"Loop": _LOOP, "Scan": _LOOP, "NonMaxSuppression": _DATA_DEPENDENT}
"""Operator -> why none of its cases passes."""

CASES: Mapping[str, str] = {
    "test_causal_conv_with_state_kernel_size_one": _EMPTY_OUTPUT,
    "test_shape_start_greater_than_end": _EMPTY_OUTPUT,
    "test_slice_start_out_of_bounds": _EMPTY_OUTPUT,
    "test_reshape_allowzero_reordered": _EMPTY_INPUT,
    "test_reduce_sum_empty_set_non_reduced_axis_zero": _EMPTY_INPUT,
    "test_split_zero_size_splits_opset13": _EMPTY_INPUT,
    "test_split_zero_size_splits_opset18": _EMPTY_INPUT,
    **{
        f"test_reduce_{name}_empty_set": _EMPTY_INPUT
        for name in ("l1", "l2", "log_sum", "log_sum_exp", "max", "min", "prod", "sum", "sum_square")
    },
}
"""Case -> why it does not pass. Releases of onnx differ in the cases they have."""


EXPANSIONS: Mapping[str, str] = {"LinearAttention": _LOOP}
"""Operator -> why what it is spelled out in does not pass, though the operator itself does."""


def check(found: Iterable[Case], listed: Set[str], folder: Path) -> None:
    """What ONNX Runtime passes must pass, unless its operator or name is listed, and then it must not."""
    failed, passed = {}, []
    for case in found:
        try:
            fault = difference(case, run_plainly(case))
        except Exception:  # ONNX Runtime raises many classes without a common base
            continue
        if fault:
            continue
        expected = bool({case.operator, case.name, case.name.split("_expanded")[0]} & listed)
        try:
            fault = difference(case, run_loaded(case, folder))
        except EngineError as error:
            fault = str(error)
        if fault and not expected:
            failed[case.name] = fault
        elif expected and not fault:
            passed.append(case.name)
    assert not failed, "\n".join(f"{name}: {fault}" for name, fault in failed.items())
    assert not passed, f"listed as not passing: {passed}"


@pytest.mark.slow
def test_a_case_of_every_operator_passes_if_onnxruntime_passes_it(tmp_path: Path) -> None:
    check({case.operator: case for case in cases().values()}.values(), {*OPERATORS, *CASES}, tmp_path)


@pytest.mark.slow
def test_every_case_that_onnxruntime_passes_passes_but_for_those_listed(tmp_path: Path) -> None:
    check(cases().values(), {*OPERATORS, *CASES}, tmp_path)


@pytest.mark.slow
def test_operators_that_are_spelled_out_pass_as_well(tmp_path: Path) -> None:
    check(expansions().values(), {*CASES, *EXPANSIONS}, tmp_path)


@pytest.mark.slow
def test_the_cases_are_many_and_of_most_operators() -> None:
    assert len(cases()) > 600
    assert len({case.operator for case in cases().values()}) > 100
