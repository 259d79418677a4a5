"""Stepping through what a search found, and taking it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.summaries import Candidate, Quality, TuneReport
from rknn_tui.bench.dialogue import Notice, Question, Reply
from rknn_tui.bench.job import Job
from rknn_tui.screens.candidates import CandidatesScreen, changes_text
from rknn_tui.symbols import ASCII
from rknn_tui.widgets.chart import ChartView
from rknn_tui.widgets.row_list import RowColumn, column_widths
from tests.rknn_tui.stand_in import SIZES, User, shown


def quality(cosine: float, noise: float = 0.01) -> Quality:
    return Quality(cosine, cosine - 0.01, noise, ())


def candidate(number: int) -> Candidate:
    wishes = {f"/model.{layer}/conv/output": "float16" for layer in range(number)}
    return Candidate(wishes, tuple(wishes), 0.02 * number, quality(0.993 + 0.001 * number, 0.01 / (number + 1)))


REPORT = TuneReport(quality(0.9931), tuple(candidate(number) for number in range(1, 6)), 2, True, True, 8, 12.0)


class Bench:
    """Remembers what was asked of it."""

    def __init__(self, report: TuneReport | None = REPORT) -> None:
        self.tune_report = report
        self.in_force: int | None = None
        self.search_job: Job | None = None
        self.calls: list[object] = []
        self.reply: Reply = None

    def preview_candidate(self, index: int) -> Reply:
        self.calls.append(("preview", index))
        self.in_force = index
        return Notice(f"candidate {index + 1} is shown in the graph")

    def take_candidate(self, index: int) -> Reply:
        self.calls.append(("take", index))
        return self.reply

    def cancel(self) -> Reply:
        self.calls.append("cancel")
        return Notice("cancelling")


def plot(user: User) -> str:
    return user.screen.query_one(ChartView).text


async def test_candidates_are_rows_with_the_model_as_it_was_first_and_the_chosen_one_under_the_cursor() -> None:
    async with shown(lambda app: CandidatesScreen(app, Bench())) as user:
        rows = user.text("rows").split("\n")
        assert len(rows) == 6
        assert rows[0].split()[:5] == ["0", "0", "+0.0%", "0.99310", "0.98310"]
        assert "the model as it was" in rows[0]
        assert rows[3].split()[:7] == ["3", "c", "3", "+6.0%", "0.99600", "0.98600", "26.0"]
        assert "float16: /model.0" in rows[3]
        assert user.screen.rows.cursor == 3
        assert "5 candidates" in user.text("title")
        assert "wish fulfilled" in user.text("title")
        assert "3 layers, +6.0% time (est)" in user.text("about")
        assert "the cheapest that fulfils the wish" in user.text("about")
        for number in "0124":
            assert number in plot(user)
        assert "[3]" in plot(user)


async def test_the_extra_time_is_told_in_milliseconds_where_the_models_is_known() -> None:
    found = tuple(dataclasses.replace(one, time_us=2500 * (1 + one.cost)) for one in REPORT.candidates)
    bench = Bench(dataclasses.replace(REPORT, candidates=found, time_us=2500.0))
    async with shown(lambda app: CandidatesScreen(app, bench)) as user:
        rows = user.text("rows").split("\n")
        assert rows[3].split()[3:5] == ["+6.0%", "+0.1500"]
        assert "est ms" in user.text("columns")
        assert "3 layers, +6.0% time (est)" in user.text("about")


async def test_space_looks_at_a_candidate_and_the_screen_stays() -> None:
    bench = Bench()
    async with shown(lambda app: CandidatesScreen(app, bench)) as user:
        await user.press("j", "space")
        assert bench.calls == [("preview", 3)]
        assert user.app.went_to == []
        assert user.text("message").strip() == "candidate 4 is shown in the graph"
        assert [row[3:5].strip() for row in user.text("rows").split("\n")] == ["", "", "", "", "=", ""]
        assert "[4]" in plot(user)
        assert "= in force" in user.text("about")
        await user.press("g", "space")
        assert bench.calls[1:] == [("preview", -1)], "row 0 is the model as it was"


async def test_enter_takes_a_candidate_and_goes_back_unless_that_is_refused() -> None:
    bench = Bench()
    bench.reply = Notice("a job is running", "warning")
    async with shown(lambda app: CandidatesScreen(app, bench)) as user:
        await user.press("G", "enter")
        assert bench.calls == [("take", 4)]
        assert user.app.went_to == []
        assert "a job is running" in user.text("message")
        bench.reply = Notice("candidate 5 is in force")
        await user.press("enter")
        assert user.app.went_to == ["tune"]
        assert user.app.tune.told == [bench.reply]
        bench.reply = Question("replace", "really?")
        await user.press("enter")
        assert user.app.tune.told[1:] == [bench.reply]


async def test_without_a_search_it_says_what_to_press_and_a_running_one_is_told_and_cancelled() -> None:
    bench = Bench(None)
    async with shown(lambda app: CandidatesScreen(app, bench)) as user:
        assert "no search has run yet: A on the layers' screen" in user.text("rows")
        await user.press("space", "enter")
        assert "no search has run yet" in user.text("message")
        assert bench.calls == []
        bench.search_job = Job("tune", [])
        bench.search_job.progressed("search", 35, 100)
        user.screen.refresh_rows()
        assert "search 35%" in user.text("title")
        assert "x cancel" in user.text("keys")
        assert "the search has found nothing yet" in user.text("rows")
        await user.press("x")
        assert bench.calls == ["cancel"]
        bench.search_job, bench.tune_report = None, REPORT
        user.screen.refresh_rows()
        assert "%" not in user.text("title")
        assert "cancel" not in user.text("keys"), "there is nothing to cancel"
        assert user.screen.rows.cursor == 3
        await user.press("escape")
        assert user.app.went_to == ["tune"]


async def test_a_search_that_found_nothing_or_was_cancelled_says_so() -> None:
    report = TuneReport(quality(0.9, 0.0), (), -1, False, False, 1, 1.0)
    async with shown(lambda app: CandidatesScreen(app, Bench(report))) as user:
        assert "search cancelled" in user.text("title")
        assert "wish not fulfilled" in user.text("title")
        assert user.text("rows").split()[:6] == ["0", "0", "+0.0%", "0.90000", "0.89000", "inf"]
        assert "nothing better was found" in plot(user)


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int]) -> None:
    async with shown(lambda app: CandidatesScreen(app, Bench()), size) as user:
        assert user.fits()
        chart = user.screen.query_one(ChartView)
        assert chart.display == (size[1] >= 20)
        if size[0] >= 120:
            assert chart.region.x > user.screen.rows.region.x
        assert await user.paints() == 0


async def test_a_resize_brings_the_plot_and_takes_it_away() -> None:
    async with shown(lambda app: CandidatesScreen(app, Bench()), (60, 16)) as user:
        await user.pilot.resize_terminal(80, 24)
        await user.until(lambda: "[3]" in plot(user))
        await user.pilot.resize_terminal(60, 16)
        await user.until(lambda: not user.screen.query_one(ChartView).display)


async def test_plain_signs_where_the_locale_has_no_others() -> None:
    async with shown(lambda app: CandidatesScreen(app, Bench()), signs=ASCII) as user:
        assert all(line.isascii() for line in user.lines())


async def test_progress_repaints_the_title_alone() -> None:
    bench = Bench()
    bench.search_job = Job("tune", [])
    async with shown(lambda app: CandidatesScreen(app, bench)) as user:
        before = user.lines()
        bench.search_job.progressed("search", 36, 100)
        user.screen.refresh_rows()
        await user.pilot.pause()
        after = user.lines()
        assert [row for row in range(24) if before[row] != after[row]] == [0]
        assert "search 36%" in after[0]


def test_what_changes_is_told_by_precision() -> None:
    def text(wishes: dict[str, str]) -> str:
        return changes_text(Candidate(wishes, (), 0.0, quality(1)))

    assert text({"a": "float16", "b": "int16", "c": "float16"}) == "float16: a, c; int16: b"
    assert text({}) == "corrected biases"


columns = st.builds(
    RowColumn,
    st.text("abc", max_size=9),
    st.integers(0, 60),
    least=st.integers(0, 60),
    rank=st.integers(0, 4),
)


@given(st.lists(columns, max_size=8), st.integers(-2, 200))
def test_columns_fit_their_width_and_are_never_wider_than_needed(some: list[RowColumn], width: int) -> None:
    widths = column_widths(some, width)
    kept = [cells for cells in widths if cells]
    assert sum(kept) + max(len(kept) - 1, 0) <= max(width, 0)
    assert all(cells <= max(column.needs, cell_len(column.title)) for cells, column in zip(widths, some, strict=True))


@given(st.lists(columns, min_size=1, max_size=8))
def test_with_room_enough_every_column_has_all_that_it_needs(some: list[RowColumn]) -> None:
    assert column_widths(some, 1000) == [max(column.needs, cell_len(column.title)) for column in some]


def test_the_least_needed_columns_are_left_out_first() -> None:
    some = [RowColumn("a", 10), RowColumn("b", 10, rank=2), RowColumn("c", 30, least=5, rank=1)]
    assert column_widths(some, 60) == [10, 10, 30]
    assert column_widths(some, 40) == [10, 10, 18]
    assert column_widths(some, 20) == [10, 0, 9]
    assert column_widths(some, 12) == [10, 0, 0]


async def test_what_is_told_of_a_candidate_is_wrapped_anew_beside_the_plot() -> None:
    async with shown(lambda app: CandidatesScreen(app, Bench())) as user:
        await user.press("G")
        await user.pilot.resize_terminal(130, 30)
        about = user.screen.line("about")
        await user.until(lambda: about.size.width < 80)
        last = "/model.4/conv/output"
        await user.until(lambda: any(last in line[: about.size.width] for line in user.lines()[-9:]))
