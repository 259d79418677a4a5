"""How far a job is, and how long it will take still."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rknn_tui.bench.job import Job, rough
from rknn_tui.keymap import DEFAULT
from rknn_tui.status import JOB_CELLS


def running(seconds: float, done: int, total: int) -> Job:
    job = Job("build int8", [])
    job.progressed("calibrate", done, total)
    job.stage_started = time.monotonic() - seconds
    return job


def test_the_time_left_follows_from_the_time_taken() -> None:
    job = running(30, 25, 100)
    assert job.progress == "calibrate 25%"
    assert job.left == "2 min left"


@pytest.mark.parametrize(("seconds", "done", "total"), [(0.2, 1, 10), (30, 0, 10), (30, 10, 10), (30, 5, 0)])
def test_no_estimate_is_made_from_nothing(seconds: float, done: int, total: int) -> None:
    assert running(seconds, done, total).left == ""


def test_a_new_stage_starts_its_own_clock() -> None:
    job = running(30, 5, 10)
    job.progressed("analyse", 5, 10)
    assert job.left == ""


@given(st.floats(0, 1e6))
def test_a_rough_time_is_never_too_short_and_fits_its_place(seconds: float) -> None:
    number, unit = rough(seconds).split()
    size = {"s": 1, "min": 60, "h": 3600}[unit]
    assert int(number) * size >= seconds
    assert (int(number) - 1) * size <= seconds
    if seconds < 99 * 3600:
        assert len(f"calibrate 99% {rough(seconds)} left") <= JOB_CELLS


def test_an_action_without_a_key_is_named_by_its_command() -> None:
    assert DEFAULT.shown("cancel") == "x"
    assert type(DEFAULT)({**DEFAULT.keys, "cancel": ()}).shown("cancel") == "'cancel'"


def test_without_a_known_end_the_steps_are_counted() -> None:
    job = Job("tune", [])
    job.progressed("search", 0, 0)
    assert job.progress == "search"
    job.progressed("search", 5, 0)
    assert job.progress == "search 5 done"
