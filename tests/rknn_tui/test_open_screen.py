"""Picking files: those used before, and any other by its path."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rknn_tui import completion, settings
from rknn_tui.completion import CFG_SUFFIXES, CONFIG_SUFFIXES, DATASET_SUFFIXES, entries
from rknn_tui.screens.choose import OpenScreen, PickScreen, RecentFile, ago
from rknn_tui.symbols import ASCII
from tests.rknn_tui.stand_in import SIZES, StandIn, User, shown


def picker(suffixes: tuple[str, ...] = DATASET_SUFFIXES, start: str = "", *recent: RecentFile) -> type[PickScreen]:
    return lambda app: PickScreen("choose a dataset", suffixes, start, recent, app.palette, app.symbols)  # type: ignore[return-value]


def listed(user: User) -> list[str]:
    screen = user.screen
    return ["".join(text for text, _ in screen.list.row_line(row)).strip() for row in range(screen.list.row_count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dataset.txt", "other.txt", "model.onnx", "a.yaml", "b.yml", "m.quantization.cfg", "net.cfg"):
        (tmp_path / name).touch()
    (tmp_path / "images").mkdir()
    return tmp_path


async def test_it_begins_at_a_folder_and_offers_the_files_of_its_kind(folder: Path) -> None:
    async with shown(picker(DATASET_SUFFIXES, f"{folder}/")) as user:
        await user.until(lambda: len(listed(user)) == 3)
        assert [Path(name).name for name in listed(user)] == ["images", "dataset.txt", "other.txt"]
        await user.press("down", "enter")
        assert user.app.answers == [f"{folder}/dataset.txt"]


@pytest.mark.parametrize(
    ("suffixes", "names"),
    [(CONFIG_SUFFIXES, ["a.yaml", "b.yml"]), (CFG_SUFFIXES, ["m.quantization.cfg", "net.cfg"])],
)
def test_each_kind_of_file_has_its_endings(suffixes: tuple[str, ...], names: list[str], folder: Path) -> None:
    assert [Path(name).name for name in entries(f"{folder}/", suffixes)] == ["images", *names]


async def test_a_file_that_was_chosen_before_is_taken_again_with_enter(folder: Path) -> None:
    async with shown(picker(DATASET_SUFFIXES, f"{folder}/other.txt")) as user:
        await user.until(lambda: len(listed(user)) == 1)
        await user.press("enter")
        assert user.app.answers == [f"{folder}/other.txt"]


async def test_files_used_before_come_first_with_when_and_are_found_by_any_part_of_their_path(folder: Path) -> None:
    long = "/data/" + "folder/" * 20 + "coco.txt"
    recent = (RecentFile(long, time.time() - 3 * 3600 - 60), RecentFile("/data/imagenet.txt"))
    async with shown(picker(DATASET_SUFFIXES, "", *recent)) as user:
        await user.until(lambda: len(listed(user)) == 2 and listed(user)[0].endswith("3 h ago"))
        row = listed(user)[0]
        assert "folder/coco.txt" in row
        assert len(row) <= 78
        assert listed(user)[1] == "/data/imagenet.txt"
        await user.press(*"net")
        assert listed(user)[-1] == "/data/imagenet.txt"
        await user.press("up", "pagedown", "enter")
        assert user.app.answers == ["/data/imagenet.txt"]


async def test_tab_completes_enter_goes_into_a_folder_and_any_path_can_be_typed(folder: Path) -> None:
    async with shown(picker(DATASET_SUFFIXES, f"{folder}/im")) as user:
        await user.press("tab")
        assert user.screen.prompt.value == f"{folder}/images/"
        await user.press("escape")
        assert user.screen.prompt.value == ""
        user.screen.prompt.set_text(f"{folder}/im")
        await user.pilot.pause()
        await user.press("enter")
        assert user.screen.prompt.value == f"{folder}/images/"
        await user.press(*"no-such-file", "enter")
        assert user.app.answers == [f"{folder}/images/no-such-file"]


async def test_escape_takes_the_text_back_and_then_leaves(folder: Path) -> None:
    async with shown(picker(DATASET_SUFFIXES, f"{folder}/")) as user:
        await user.press("escape", "escape")
        assert user.app.answers == [None]


async def test_models_opened_before_are_offered_or_those_of_this_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    def opener(app: StandIn) -> OpenScreen:
        return OpenScreen(app.palette, app.symbols)

    async with shown(opener, size=(200, 50)) as user:
        assert listed(user) == ["images/", "model.onnx"]
        assert "or choose a file" in user.text("title")
    settings.remember_file(str(folder / "model.onnx"))
    async with shown(opener, size=(200, 50)) as user:
        assert listed(user) == [str(folder / "model.onnx")]
        assert "or choose one opened before" in user.text("title")
        await user.press("enter")
        assert user.app.answers == [str(folder / "model.onnx")]


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int]) -> None:
    recent = [RecentFile(f"/data/{'folder/' * number}model.onnx", time.time() - 60 * 7**number) for number in range(20)]

    def opener(app: StandIn) -> OpenScreen:
        return OpenScreen(app.palette, app.symbols, recent)

    async with shown(opener, size, ASCII) as user:
        await user.until(lambda: listed(user)[5].endswith("11 days ago"))
        lines = user.lines()
        assert "11 days ago" in lines[7]
        assert "model.onnx" in lines[7]
        assert all(line.isascii() for line in lines)
        assert await user.paints() == 0


def test_a_folder_with_very_many_other_files_still_offers_its_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "MOST_ENTRIES", 5)
    for number in range(50):
        (tmp_path / f"image{number}.png").touch()
    (tmp_path / "model.onnx").touch()
    assert entries(f"{tmp_path}/", (".onnx",)) == [f"{tmp_path}/model.onnx"]
    assert len(entries(f"{tmp_path}/", (".png",))) == 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (7300, "2 h ago"),
        (86400, "1 day ago"),
        (1e6, "11 days ago"),
    ],
)
def test_how_long_ago_is_told_roughly(seconds: float, words: str) -> None:
    assert ago(seconds) == words
