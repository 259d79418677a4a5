"""The list of jobs, and the log: what is read of it, and when."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.screen import Screen

from rknn_tui.bench import job
from rknn_tui.bench.dialogue import Notice, Question, Reply
from rknn_tui.bench.job import Job
from rknn_tui.bench.job_records import JobRecord, clock, in_order
from rknn_tui.screens import jobs
from rknn_tui.screens.jobs import JobsScreen
from rknn_tui.symbols import ASCII
from rknn_tui.widgets import log_view
from rknn_tui.widgets.log_view import LogFile
from tests.rknn_tui.stand_in import SIZES, User, shown

NOW = 5000.0


class Bench:
    """Remembers what was asked of it."""

    def __init__(self, jobs: list[JobRecord], log: Path | None = None) -> None:
        self.jobs = jobs
        self.log_path = log
        self.calls: list[object] = []
        self.reply: Reply = Notice("cancelling")

    def cancel_job(self, number: int) -> Reply:
        self.calls.append(("cancel", number))
        return self.reply


@pytest.fixture(autouse=True)
def clock_that_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (jobs, job):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: NOW))


def some_jobs() -> list[JobRecord]:
    now = NOW
    running = Job("tune", [])
    running.progressed("search", 42, 100)
    running.stage_started = now - 42
    return [
        JobRecord(1, "load", "done", now - 100, now - 99, "30 layers"),
        JobRecord(2, "build int8", "failed", now - 90, now - 20.5, "dataset.txt: line 3: c.npy does not exist " * 4),
        JobRecord(3, "tune", "running", now - 75.5, None, "", running),
        JobRecord(4, "lint"),
    ]


def names(user: User) -> list[str]:
    return [row.split()[0] for row in user.text("rows").split("\n")]


async def test_jobs_are_listed_running_ones_first_with_their_progress() -> None:
    async with shown(lambda app: JobsScreen(app, Bench(some_jobs())), (100, 24)) as user:
        rows = user.text("rows").split("\n")
        assert names(user) == ["3", "4", "2", "1"]
        assert "1 running  1 waiting  4 jobs" in user.text("title")
        assert rows[0].split() == ["3", "running", "███▎", "42%", "1:15", "58", "s", "left", "tune", "search"]
        assert rows[1].split() == ["4", "waiting", "lint"]
        assert rows[2].split()[:5] == ["2", "failed", "1:09", "build", "int8"]
        assert "dataset.txt: line 3" in rows[2]
        assert "30 layers" in rows[3]


async def test_progress_moves_in_place_and_the_cursor_stays_on_its_job() -> None:
    bench = Bench(some_jobs())
    async with shown(lambda app: JobsScreen(app, bench)) as user:
        await user.press("j", "j")
        running = bench.jobs[2].job
        assert running is not None
        running.progressed("search", 43, 100)
        user.screen.refresh_rows()
        assert "43%" in user.text("rows").split("\n")[0]
        bench.jobs[2].state, bench.jobs[2].ended = "done", NOW
        bench.jobs[2].message = "5 candidates"
        bench.jobs[3].state, bench.jobs[3].started = "running", NOW
        bench.jobs.append(JobRecord(5, "export"))
        user.screen.refresh_rows()
        assert names(user) == ["4", "5", "3", "2", "1"]
        assert user.screen.record.number == 2
        assert "5 candidates" in user.text("rows")


async def test_progress_is_drawn_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(some_jobs())
    async with shown(lambda app: JobsScreen(app, bench)) as user:
        running = bench.jobs[2].job
        assert running is not None
        for later, done, told in ((1.0, 43, "43%"), (1.5, 44, "43%"), (2.0, 45, "45%")):
            moment = NOW + later
            monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda now=moment: now))
            running.progressed("search", done, 100)
            user.screen.progress_changed()
            await user.pilot.pause()
            assert told in user.lines()[2]


async def test_x_cancels_the_job_under_the_cursor_only_while_it_runs_or_waits() -> None:
    bench = Bench(some_jobs())
    async with shown(lambda app: JobsScreen(app, bench)) as user:
        await user.press("j", "x")
        assert bench.calls == [("cancel", 4)]
        assert "cancelling" in user.text("message")
        await user.press("G", "x")
        assert bench.calls == [("cancel", 4)]
        assert "the job has ended" in user.text("message")
        bench.reply = Question("cancel", "tune has run for over a minute. y cancels it", confirm=True)
        await user.press("g", "x")
        assert user.app.went_to == ["tune"], "where questions are answered"
        assert user.app.tune.told == [bench.reply]


async def test_enter_shows_the_whole_message_and_hides_it_again() -> None:
    bench = Bench(some_jobs())
    async with shown(lambda app: JobsScreen(app, bench)) as user:
        await user.press("j", "j", "enter")
        assert " ".join(user.text("about").split()).count("c.npy does not exist") == 4
        assert any("c.npy does not exist" in line for line in user.lines()[-8:])
        await user.press("j")
        await user.sees("about", "30 layers")
        await user.press("enter")
        assert not user.screen.line("about").display


async def test_without_jobs_it_says_so() -> None:
    async with shown(lambda app: JobsScreen(app, Bench([]))) as user:
        assert user.text("rows") == "no job has run since the start"
        await user.press("x", "enter", "j", "l", "l")
        assert "no job has run" in user.text("message")


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.readlink() == path:
                return True
    return False


def log_lines(user: User) -> list[str]:
    return [line.strip() for line in user.screen.log_view.text.split("\n")]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "engine.log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    return path


async def test_a_closed_log_costs_nothing_and_an_open_one_follows_its_end(log: Path) -> None:
    async with shown(lambda app: JobsScreen(app, Bench(some_jobs(), log))) as user:
        assert not is_open(log)
        await user.press("l")
        await user.until(lambda: log_lines(user)[-1] == "line 999")
        assert is_open(log)
        assert "follows the end" in user.text("log-title")
        assert await user.paints() == 0, "nothing is drawn while nothing is written"
        with log.open("a") as file:
            file.write("one more\n")
        await user.until(lambda: log_lines(user)[-1] == "one more")
        await user.press("l")
        assert not is_open(log)
        assert not user.screen.query_one("#log").display
        with log.open("a") as file:
            file.write("unseen\n")
        assert await user.paints() == 0


async def test_scrolled_up_the_log_stands_still_until_its_end_is_asked_for(log: Path) -> None:
    async with shown(lambda app: JobsScreen(app, Bench(some_jobs(), log))) as user:
        await user.press("l")
        await user.until(lambda: log_lines(user)[-1] == "line 999")
        page = len(log_lines(user))
        await user.press("pageup")
        assert log_lines(user)[-1] == f"line {999 - page}"
        assert "stands still; G follows" in user.text("log-title")
        seen = log_lines(user)
        with log.open("a") as file:
            file.write("more\n" * 50)
        await user.pilot.pause(0.6)
        assert log_lines(user) == seen
        await user.press("pagedown", "pagedown")
        assert log_lines(user)[-1] == "more"
        await user.press("g")
        assert log_lines(user)[0] == "line 0"
        await user.press("ctrl+d", "ctrl+u")
        assert log_lines(user)[0] == "line 0"
        await user.press("G")
        assert log_lines(user)[-1] == "more"
        assert "follows the end" in user.text("log-title")
        await user.press("pageup", *["pagedown"] * 3)
        assert user.screen.log_view.following
        assert user.screen.rows.cursor == 0, "the rows have the keys for single steps only"


async def test_behind_another_screen_the_log_is_closed_and_opened_again_where_it_was(log: Path) -> None:
    async with shown(lambda app: JobsScreen(app, Bench(some_jobs(), log))) as user:
        await user.press("l", "pageup")
        seen = log_lines(user)
        other: Screen[Any] = Screen()
        await user.app.push_screen(other)
        await user.until(lambda: not is_open(log))
        user.app.pop_screen()
        await user.until(lambda: is_open(log))
        await user.pilot.pause()
        assert log_lines(user) == seen


async def test_a_log_that_is_missing_cut_or_replaced_is_no_trouble(log: Path) -> None:
    log.unlink()
    bench = Bench(some_jobs(), log)
    async with shown(lambda app: JobsScreen(app, bench)) as user:
        await user.press("l")
        assert log_lines(user) == ["the log is empty"]
        log.write_text("first\nsecond")
        await user.until(lambda: log_lines(user) == ["first", "second"])
        log.write_text("cut\n")
        await user.until(lambda: log_lines(user) == ["cut"])
        fresh = log.with_name("fresh")
        fresh.write_text("another\nfile\nnow\n")
        fresh.replace(log)
        await user.until(lambda: log_lines(user) == ["another", "file", "now"])
        await user.press("l")
        bench.log_path = None
        await user.press("l")
        assert "there is no log" in log_lines(user)[0]


async def test_what_the_log_holds_cannot_command_the_terminal(log: Path) -> None:
    log.write_bytes(b"\x1b[2Jred\x1b]0;x\x07\n\xff\xfe\x00\n10%\r20%\rdone\r\n" + b"x" * 100_000)
    async with shown(lambda app: JobsScreen(app, Bench(some_jobs(), log)), signs=ASCII) as user:
        await user.press("l")
        await user.until(lambda: "?[2Jred?]0;x?" in log_lines(user))
        assert log_lines(user)[2:5] == ["10%", "20%", "done"]
        assert all(line.isascii() and line.isprintable() for line in user.lines())


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int], log: Path) -> None:
    async with shown(lambda app: JobsScreen(app, Bench(some_jobs(), log)), size) as user:
        await user.press("l", "j", "j", "enter")
        await user.until(lambda: log_lines(user)[-1] == "line 999")
        assert user.fits()
        assert await user.paints() == 0


def test_of_a_file_of_a_gigabyte_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.log"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 30)
        file.write(b"".join(b"line %d\n" % number for number in range(2000)))
    read: list[int] = []
    reading = LogFile._read

    def counted(self: LogFile, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return reading(self, start, stop)

    monkeypatch.setattr(LogFile, "_read", counted)
    one = LogFile(path)
    one.look()
    one.begin_at(one.size)
    while len(one) < 30:
        one.reach_back()
    assert one.line(len(one) - 1) == "line 1999"
    one.begin_at(0)
    while len(one) < 30:
        one.reach_on()
    one.line(0)
    one.close()
    assert sum(read) < 10_000_000


def raw_lines(one: LogFile) -> list[int]:
    return one.starts[:-1] if one.starts and one.starts[-1] == one.size else one.starts


pieces = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"d"]), max_size=60).map(b"".join)


@given(pieces, pieces, st.integers(7, 40))
@settings(deadline=None, max_examples=200)
def test_lines_are_the_same_from_both_ends_and_while_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, block: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(before)
    content = before + after
    text = content.decode().replace("\r", "").replace("\n", "")
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.closing(LogFile(path)) as growing,
        contextlib.closing(LogFile(path)) as backwards,
    ):
        patch.setattr(log_view, "BLOCK", block)
        growing.look()
        growing.begin_at(0)
        while growing.reach_on():
            pass
        with path.open("ab") as file:
            file.write(after)
        growing.look()
        while growing.reach_on():
            pass
        assert "".join(growing.line(index) for index in range(len(growing))) == text
        assert growing.starts == sorted(set(growing.starts))
        backwards.look()
        backwards.begin_at(backwards.size)
        while backwards.reach_back():
            pass
        assert backwards.starts[:1] == [0]
        assert "".join(backwards.line(index) for index in range(len(backwards))) == text
        if max(map(len, content.replace(b"\r", b"\n").split(b"\n")), default=0) < block - 2:
            assert raw_lines(backwards) == raw_lines(growing)


def test_a_long_look_back_keeps_a_bounded_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_view, "MOST_LINES", 100)
    monkeypatch.setattr(log_view, "BLOCK", 200)
    path = tmp_path / "log"
    path.write_text("".join(f"{number}\n" for number in range(5000)))
    one = LogFile(path)
    one.look()
    one.begin_at(one.size)
    while one.reach_back():
        assert len(one.starts) <= 101
    assert [one.line(index) for index in range(3)] == ["0", "1", "2"]
    while one.reach_on():
        assert len(one.starts) <= 100
    assert one.line(len(one) - 1) == "4999"
    one.close()


def test_jobs_come_in_the_order_in_which_they_matter() -> None:
    states = ["done", "waiting", "running", "cancelled", "waiting", "running"]
    records = [JobRecord(number, "job", state) for number, state in enumerate(states)]
    assert [record.number for record in in_order(records)] == [2, 5, 1, 4, 3, 0]


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (0.2, "0:00"), (75, "1:15"), (3723.9, "1:02:03")])
def test_durations_read_like_a_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text
