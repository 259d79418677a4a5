"""Two evaluated states of a model side by side."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.summaries import ErrorPair, Quality
from rknn_tui.bench.dialogue import Notice, Question, Reply
from rknn_tui.bench.runs import Run
from rknn_tui.comparing import merged, pairs, signed, summary
from rknn_tui.screens.choose import ChooseScreen
from rknn_tui.screens.compare import CompareScreen
from rknn_tui.symbols import ASCII
from tests.rknn_tui.stand_in import SIZES, User, shown

NAMES = [f"/model.{number}/conv/output" for number in range(30)]


def run(label: str, precisions: dict[str, str], cosines: dict[str, float], extra: float = 0.0) -> Run:
    quality = Quality(0.9931, 0.98, 0.01, ())
    errors = {name: ErrorPair(cosine, 1.0) for name, cosine in cosines.items()}
    wishes = {name: precision for name, precision in precisions.items() if precision != "int8"}
    return Run(label, "rk3588", quality, extra, precisions, errors, wishes)


BUILT = run("as built", dict.fromkeys(NAMES, "int8"), dict.fromkeys(NAMES, 0.99))
EDITED = run(
    "2 layers in float16",
    dict.fromkeys(NAMES, "int8") | dict.fromkeys(NAMES[5:7], "float16"),
    dict.fromkeys(NAMES[:6], 0.99) | dict.fromkeys(NAMES[6:], 0.9905) | {NAMES[6]: 0.999, NAMES[20]: 0.95},
    0.04,
)


class Bench:
    """Remembers what was asked of it."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)
        self.calls: list[object] = []
        self.reply: Reply = None

    def compare_file(self, side: str) -> Reply:
        self.calls.append(("file", side))
        return Question("compare", "cfg file to compare with:")

    def go_to_layer(self, name: str) -> Reply:
        self.calls.append(("go", name))
        return self.reply


def signs(user: User) -> list[str]:
    return [row[:2].strip() for row in user.text("rows").split("\n")]


async def test_both_runs_stand_above_their_layers_and_what_differs_has_a_sign() -> None:
    async with shown(lambda app: CompareScreen(app, Bench(BUILT, EDITED)), (100, 30)) as user:
        about = user.text("about").split("\n")
        assert about[0].split()[:5] == ["left", "as", "built", "cosine", "0.99310"]
        assert "SNR 20.0 dB" in about[1]
        assert "+4.0% time (est)" in about[1]
        assert "rk3588" in about[1]
        assert about[2].strip() == "30 layers: 2 P precision, 1 + nearer right, 1 - nearer left"
        rows = user.text("rows").split("\n")
        assert signs(user)[5:7] == ["P", "P+"]
        assert signs(user)[20] == "-"
        assert signs(user)[8] == "", "less than a tenth of what is lost is no difference to look at"
        assert rows[6].split() == ["P+", NAMES[6], "int8", "float16", "0.99000", "0.99900", "+0.00900"]
        assert rows[20].split()[-1] == "-0.04000"


async def test_differences_are_gone_through_and_shown_alone() -> None:
    async with shown(lambda app: CompareScreen(app, Bench(BUILT, EDITED))) as user:
        await user.press("n")
        assert user.screen.rows.cursor == 5
        await user.press("]", "n")
        assert user.screen.rows.cursor == 20
        await user.press("n")
        assert user.screen.rows.cursor == 20
        assert "no more differences" in user.text("message")
        await user.press("N")
        assert user.screen.rows.cursor == 6
        await user.press("d")
        assert signs(user) == ["P", "P+", "-"]
        assert user.screen.pair.name == NAMES[6], "the cursor stays on its layer"
        assert "only differences" in user.text("title")
        await user.press("j", "d")
        assert user.screen.rows.cursor == 20
        assert len(signs(user)) == 30


async def test_enter_goes_to_the_layer() -> None:
    bench = Bench(BUILT, EDITED)
    bench.reply = Notice("no such layer", "warning")
    async with shown(lambda app: CompareScreen(app, bench)) as user:
        await user.press("j", "enter")
        assert bench.calls == [("go", NAMES[1])]
        assert user.app.went_to == []
        bench.reply = None
        await user.press("enter")
        assert user.app.went_to == ["tune"]


async def test_sides_are_chosen_from_what_was_evaluated_or_a_file() -> None:
    third = run("third", dict.fromkeys(NAMES, "int16"), dict.fromkeys(NAMES, 0.9999))
    bench = Bench(BUILT, EDITED)
    async with shown(lambda app: CompareScreen(app, bench)) as user:
        bench.runs.append(third)
        user.screen.refresh_rows()
        assert "third" in user.text("about").split("\n")[1], "the latest, as long as nothing was chosen"
        await user.press("a")
        assert isinstance(user.app.screen, ChooseScreen)
        await user.press(*"float16", "enter")
        assert "2 layers in float16" in user.text("about").split("\n")[0]
        await user.press("b")
        await user.press("escape")
        await user.press("b", "up", "pagedown", "enter")
        assert bench.calls == [("file", "right")]
        assert user.app.went_to == ["tune"], "where questions are answered"
        assert user.app.tune.told == [Question("compare", "cfg file to compare with:")]
        user.screen.choose("right", run("other.cfg", dict.fromkeys(NAMES, "int8"), {}))
        right = user.text("about").split("\n")[1]
        assert "other.cfg" in right
        bench.runs.clear()
        user.screen.forget()
        assert "nothing was evaluated yet" in user.text("rows")


async def test_the_state_of_this_moment_goes_on_where_it_was_chosen() -> None:
    bench = Bench(BUILT, run("now", dict.fromkeys(NAMES, "int8"), dict.fromkeys(NAMES, 0.99)))
    async with shown(lambda app: CompareScreen(app, bench)) as user:
        await user.press("a", *"now", "enter")
        bench.runs[1] = run("now", dict.fromkeys(NAMES, "int8"), dict.fromkeys(NAMES, 0.99), 0.25)
        user.screen.numbers_changed()
        assert "+25.0% time" in user.text("about").split("\n")[0]
        assert "no differences" in user.text("about")


async def test_with_one_run_or_none_it_says_what_to_do() -> None:
    bench = Bench()
    async with shown(lambda app: CompareScreen(app, bench)) as user:
        assert "nothing was evaluated yet: a on the layers' screen" in user.text("rows")
        await user.press("a", "n", "N", "d", "enter", "j")
        assert user.app.screen is user.screen
        assert bench.calls == []
        bench.runs.append(BUILT)
        user.screen.refresh_rows()
        assert "as built" in user.text("about")
        assert "nothing; b chooses" in user.text("about")
        assert "there is one result" in user.text("rows")
        bench.runs.append(BUILT)
        user.screen.refresh_rows()
        assert "no differences" in user.text("rows")


async def test_layers_of_one_side_only_are_shown() -> None:
    left = run("left", {"a": "int8", "b": "int8"}, {"a": 0.9})
    right = run("right", {"x": "float16", "b": "int8", "y": "int8"}, {"y": 0.9})
    async with shown(lambda app: CompareScreen(app, Bench(left, right))) as user:
        rows = [row.split() for row in user.text("rows").split("\n")]
        assert rows == [
            [">", "x", "none", "float16"],
            ["<", "a", "int8", "none", "0.90000"],
            ["b", "int8", "int8"],
            [">", "y", "none", "int8", "0.90000"],
        ]


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int]) -> None:
    async with shown(lambda app: CompareScreen(app, Bench(BUILT, EDITED)), size) as user:
        await user.press("n", "n")
        assert user.fits()
        assert any("float16" in line and "P+" in line for line in user.lines())
        assert await user.paints() == 0


async def test_plain_signs_where_the_locale_has_no_others() -> None:
    hostile = run("\x1b[2J", {"\x1b[31mlayer": "int8"}, {})
    async with shown(lambda app: CompareScreen(app, Bench(hostile, hostile)), signs=ASCII) as user:
        assert "?[31mlayer" in user.text("rows")
        assert all(line.isascii() and line.isprintable() for line in user.lines())
        await user.press("a")
        assert all(line.isascii() and line.isprintable() for line in user.lines())


names = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(names, names)
def test_merging_keeps_the_left_order_and_loses_no_layer(left: list[str], right: list[str]) -> None:
    found = merged(left, right)
    assert sorted(found) == sorted({*left, *right})
    assert [name for name in found if name in left] == left
    common = [name for name in left if name in right]
    if common == [name for name in right if name in left]:
        assert [name for name in found if name in right] == right


cosines = st.floats(-1, 1) | st.just(math.nan)


@given(cosines, cosines, st.sampled_from(["int8", "float16"]))
def test_signs_turn_round_with_the_sides(one: float, other: float, precision: str) -> None:
    left, right = run("l", {"a": "int8"}, {"a": one}), run("r", {"a": precision}, {"a": other})
    (forward,), (backward,) = pairs(left, right), pairs(right, left)
    assert backward.sign == forward.sign.translate(str.maketrans("+-", "-+"))
    assert ("P" in forward.sign) == (precision != "int8")
    if one == other:
        assert not {*"+-"} & {*forward.sign}
        assert signed(forward.difference) == ""


def test_equal_runs_have_no_differences() -> None:
    assert summary(pairs(BUILT, BUILT)) == "30 layers: no differences"
