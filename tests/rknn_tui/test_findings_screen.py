"""Reading what lint found, going to its layer, and making the change that it asks for."""

from __future__ import annotations

import pytest

from engine.summaries import Finding
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.bench.job import Job
from rknn_tui.screens.findings import FindingsScreen
from rknn_tui.symbols import ASCII
from tests.rknn_tui.stand_in import SIZES, shown

WIDE_RANGE = Finding(
    "wide-range",
    "/model.22/cv3/conv/output",
    "the range -1200 to 3000 is used by 0.1 % of the values, so that all others share 3 of 256 steps",
    "put the layer into float16, or cut its range",
    {"/model.22/cv3/conv/output": "float16"},
)
FEW_SAMPLES = Finding("few-samples", "", "calibrated with 3 samples", "give 20 or more")


class Bench:
    """Remembers what was asked of it."""

    def __init__(self, findings: list[Finding] | None) -> None:
        self.findings = findings
        self.search_job: Job | None = None
        self.calls: list[object] = []
        self.reply: Reply = None

    def go_to_layer(self, name: str) -> Reply:
        self.calls.append(("go", name))
        return self.reply

    def apply_finding(self, finding: Finding) -> Reply:
        self.calls.append(("apply", finding))
        return Notice("1 layer in float16")

    def cancel(self) -> Reply:
        self.calls.append("cancel")
        return None


async def test_findings_are_rows_and_the_current_one_is_told_in_full() -> None:
    async with shown(lambda app: FindingsScreen(app, Bench([WIDE_RANGE, FEW_SAMPLES]))) as user:
        rows = user.text("rows").split("\n")
        assert rows[0].split()[:3] == ["wide-range", "w", WIDE_RANGE.layer]
        assert "(model)" in rows[1]
        assert "2 findings" in user.text("title")
        about = " ".join(user.text("about").split())
        assert WIDE_RANGE.message in about
        assert f"remedy {WIDE_RANGE.remedy}" in about
        assert f"space sets {WIDE_RANGE.layer}: float16" in about
        await user.press("j")
        await user.sees("about", FEW_SAMPLES.message)
        assert "sets" not in user.text("about")


async def test_enter_goes_to_the_layer_and_space_makes_the_change() -> None:
    bench = Bench([WIDE_RANGE, FEW_SAMPLES])
    async with shown(lambda app: FindingsScreen(app, bench)) as user:
        await user.press("space")
        assert bench.calls == [("apply", WIDE_RANGE)]
        assert "1 layer in float16" in user.text("message")
        bench.reply = Notice("no layer of that name is shown", "warning")
        await user.press("enter")
        assert bench.calls[1:] == [("go", WIDE_RANGE.layer)]
        assert user.app.went_to == []
        assert "no layer of that name" in user.text("message")
        bench.reply = None
        await user.press("enter")
        assert user.app.went_to == ["tune"]


async def test_a_finding_about_the_model_has_no_layer_to_go_to_and_no_change_to_make() -> None:
    bench = Bench([WIDE_RANGE, FEW_SAMPLES])
    async with shown(lambda app: FindingsScreen(app, bench)) as user:
        await user.press("j", "enter")
        assert "about the whole model" in user.text("message")
        await user.press("space")
        assert "no change of precisions cures this: give 20 or more" in user.text("message")
        assert bench.calls == []
        assert user.app.went_to == []


async def test_it_says_what_to_do_before_lint_ran_while_it_runs_and_when_nothing_was_found() -> None:
    bench = Bench(None)
    async with shown(lambda app: FindingsScreen(app, bench)) as user:
        assert "nothing was looked at yet: L on the layers' screen" in user.text("rows")
        await user.press("enter", "space")
        assert bench.calls == []
        bench.search_job = Job("lint", [])
        bench.search_job.progressed("lint", 1, 2)
        user.screen.refresh_rows()
        assert "looking for what costs accuracy" in user.text("rows")
        assert "lint 50%" in user.text("title")
        await user.press("x")
        assert bench.calls == ["cancel"]
        bench.search_job, bench.findings = None, []
        user.screen.refresh_rows()
        assert user.text("rows") == "nothing found that costs accuracy"
        bench.findings = [FEW_SAMPLES]
        user.screen.refresh_rows()
        assert "few-samples" in user.text("rows")
        assert "few-samples" in user.text("about")


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int]) -> None:
    findings = [WIDE_RANGE, FEW_SAMPLES] * 40
    async with shown(lambda app: FindingsScreen(app, Bench(findings)), size) as user:
        await user.press("G")
        assert user.fits()
        assert any("few-samples" in line and "▶" in line for line in user.lines())
        assert await user.paints() == 0


async def test_names_and_messages_cannot_command_the_terminal() -> None:
    hostile = Finding("rule", "\x1b[2Jlayer", "text\x1b]0;title\x07 more", "\u202eremedy", {"\x1b[2J": "float16"})
    async with shown(lambda app: FindingsScreen(app, Bench([hostile])), signs=ASCII) as user:
        assert "?[2Jlayer" in user.text("rows")
        assert "text?]0;title? more" in user.text("about")
        assert all(line.isascii() and line.isprintable() for line in user.lines())
