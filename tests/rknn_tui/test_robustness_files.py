"""Files change, go, or cannot be written under the app: it says so in words, and edits stay."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import demo
from rknn_tui import settings
from tests.rknn_tui.real_app import ESCAPE, Place, kill_engine
from tests.rknn_tui.real_app import tells as in_terminal
from tests.rknn_tui.test_app import User
from tests.terminal import real

if sys.platform != "linux":
    pytest.skip("looks for processes in /proc", allow_module_level=True)

pytestmark = pytest.mark.slow

OBEYING_RIGHTS = """
import ctypes, os, sys
for capability in (1, 2):  # to override the rights of files, and of reading and searching folders
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path)
    monkeypatch.chdir(place.models)
    yield place
    place.close()
    assert place.left_over() == []


async def built(user: User) -> None:
    await user.press("b")
    await tells(user, "built int8")


async def saved_with_an_edit(user: User) -> None:
    """The cfg saved, and one edit since."""
    await built(user)
    await user.press("w", "enter")
    await tells(user, "saved ")
    await user.press("f")
    await user.sees("status", "*1")


async def tells(user: User, *texts: str) -> None:
    """Wait until all these are in the message, wherever its lines are broken."""

    def told() -> bool:
        message = "".join(user.text("message").split())
        return all("".join(text.split()) in message for text in texts)

    await user.until(told, lambda: f"{texts} not told: {user.text('message')}")


def edits(user: User) -> dict[str, str]:
    return dict(user.app.bench.editing.state.wishes)


# The cfg


async def test_a_cfg_that_was_deleted_is_written_again(place: Place) -> None:
    async with place.opened() as user:
        await saved_with_an_edit(user)
        for path in place.models.glob("digits.*"):
            if path != place.model:
                path.unlink()
        await user.press("ctrl+l")
        await tells(user, "does not exist (check the path)")
        assert edits(user) == {"image": "float16"}
        await user.press("equals_sign")
        await user.until(lambda: user.app.screen is not user.app.tune)
        await user.press("escape")
        await user.press("w")
        await tells(user, "saved ")
        assert "image: float16" in place.cfg.read_text()
        assert place.cfg.with_suffix("").with_suffix(".data").is_file()
        assert user.app.bench.unsaved == 0


@pytest.mark.parametrize("content", [b"# mine\n", b"\xff\xfe not text", b""])
async def test_a_cfg_that_changed_is_written_over_only_when_told_to(place: Place, content: bytes) -> None:
    async with place.opened() as user:
        await saved_with_an_edit(user)
        place.cfg.write_bytes(content)
        await user.press("w")
        await tells(user, "changed on disk")
        await user.pilot.pause(0.35)
        await user.press("n")
        assert place.cfg.read_bytes() == content
        assert user.app.bench.unsaved == 1
        await user.press("w")
        await tells(user, "changed on disk")
        await user.confirm()
        await tells(user, "saved ")
        assert "image: float16" in place.cfg.read_text()


async def test_a_folder_in_the_cfg_s_place_is_told_and_nothing_is_lost(place: Place) -> None:
    async with place.opened() as user:
        await saved_with_an_edit(user)
        place.cfg.unlink()
        place.cfg.mkdir()
        await user.press("w")
        await tells(user, "digits.quantization.cfg: cannot be read: Is a directory")
        await user.press("ctrl+l")
        await tells(user, "cannot be read")
        assert edits(user) == {"image": "float16"}
        assert user.app.bench.unsaved == 1
        place.cfg.rmdir()
        await user.press("w")
        await tells(user, "saved ")


async def test_what_was_typed_comes_back_after_the_file_was_read_again(place: Place) -> None:
    async with place.opened() as user:
        await saved_with_an_edit(user)
        await user.press("c")
        await user.until(lambda: user.app.tune.editing_text)
        editor = user.app.tune.editor
        assert editor is not None
        await user.press("ctrl+end", *"  what: [")
        await user.until(lambda: user.app.bench.text.faulty)
        for content in (place.cfg.read_text(), "broken: [", ""):
            place.cfg.write_text(content)
            await user.press("ctrl+l")
            await user.until(lambda content=content: editor.text == content)  # type: ignore[misc]
            await user.press("ctrl+z")
            await user.until(lambda: editor.text.endswith("what: ["), lambda: editor.text[-200:])
            await user.until(lambda: user.app.bench.text.faulty)
        assert edits(user) == {"image": "float16"}


async def test_a_text_with_faults_may_be_saved_and_edits_that_are_not_in_it_count_on(place: Place) -> None:
    async with place.opened() as user:
        await saved_with_an_edit(user)
        await user.press("c")
        await user.until(lambda: user.app.tune.editing_text)
        await user.press("ctrl+end", *"  what: [")
        await user.until(lambda: user.app.bench.text.faulty)
        await user.press("ctrl+s")
        await tells(user, "y saves it all the same")
        await user.confirm()
        await tells(user, "saved ")
        assert place.cfg.read_text().endswith("what: [")
        assert user.app.bench.unsaved == 1


# The editor outside

EDITORS = {
    "false": ("exit code 1", None),
    "/no/such/editor": ("cannot be started: No such file or directory", None),
    "'unbalanced": ("is no command", None),
    "rm": ("cannot be read: No such file or directory; the cfg stays as it was", None),
    "kill $PPID": ("ended with signal 15", None),
    r"printf 'a: \377' > ": ("from byte 3 on it is not UTF-8", "a: \ufffd"),
    "printf 'a: [' > ": ("the cfg was edited", "1 fault!"),
    "printf '' > ": ("the cfg was edited", "1 fault!"),
}


@pytest.mark.parametrize("editor", EDITORS)
def test_an_editor_that_fails_or_writes_nonsense_harms_nothing(place: Place, editor: str) -> None:
    told, seen = EDITORS[editor]
    command = editor
    if editor.startswith(("printf", "kill")):
        script = place.folder / "editor"
        script.write_text(f'#!/bin/sh\n{editor} "$1"\n' if seen else "#!/bin/sh\nkill $$\n")
        script.chmod(0o755)
        command = str(script)
    terminal = place.built(EDITOR=command)
    terminal.press("f")
    terminal.sees("*1")
    terminal.press("E")
    in_terminal(terminal, told)
    if seen is not None:
        terminal.press("c")
        terminal.sees(seen)
        # One step takes it back.
        terminal.press(b"\x1a")
        terminal.loses(seen)
        terminal.press(b"\x1b[1;5H")
        terminal.sees("image: float16")
        terminal.press(ESCAPE)
        terminal.sees("A repair")
    terminal.press("j")
    terminal.waits(lambda: terminal.line(3).startswith("▶"), "keys to work")
    assert "*1" in terminal.line(0)


# Folders that cannot be written


def obeying_rights(command: list[str]) -> list[str]:
    """The command as a user whom the rights of files bind, as they do not bind root."""
    return [sys.executable, "-c", OBEYING_RIGHTS, *command]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_that_cannot_be_written_costs_nothing_but_words(place: Place) -> None:
    options = ("--mean", "0", "--std", "255", "--dataset", demo.DATASET)
    before = contents(place.models)
    place.models.chmod(0o555)
    try:
        terminal = place.started(obeying_rights(real(place.model, *options)))
        terminal.sees("layers, ")
        terminal.press("b")
        terminal.sees("built int8")
        terminal.press("f")
        terminal.sees("*1")
        for key, question in (("w", "save the cfg as"), ("e", "write to:"), ("J", "as a script to")):
            terminal.press(key)
            terminal.sees(question)
            terminal.press("\r")
            in_terminal(terminal, "cannot be written: Permission denied")
            terminal.press(ESCAPE)
            terminal.loses("cannot be written")
        terminal.press("Y")
        in_terminal(terminal, "cannot be written: Permission denied")
        terminal.press("a")
        terminal.sees("analysed 17 layers")
        terminal.press("2e")
        in_terminal(terminal, "denied (choose a folder that exists and is yours)")
        terminal.press("1yn")
        terminal.sees("clip.txt")
        assert "*1" in terminal.line(0)
        terminal.press("'")
        terminal.sees("messages, the latest first")
        terminal.press("journal")
        in_terminal(terminal, "the journal is not written: Permission denied")
        terminal.press(b"\x15project")
        in_terminal(terminal, "the project is kept in")
    finally:
        place.models.chmod(0o755)
    assert contents(place.models) == before


def test_no_folder_of_the_app_s_own_is_needed(place: Place) -> None:
    nowhere = place.folder / "file"
    nowhere.touch()
    terminal = place.built(
        XDG_STATE_HOME=f"{nowhere}/state", XDG_CACHE_HOME=f"{nowhere}/cache", XDG_CONFIG_HOME=f"{nowhere}/config"
    )
    terminal.press("f")
    terminal.sees("*1")
    terminal.press("yn")
    terminal.sees("its file cannot be written")
    terminal.press("4l")
    terminal.sees("no log")
    terminal.press("1")
    kill_engine(terminal)
    terminal.sees("1 edit kept")
    terminal.press("r")
    terminal.sees("built int8")
    terminal.sees("*1")
    terminal.press("q")
    terminal.sees("1 edit not saved")
    terminal.read_for(0.4)
    terminal.press("y")
    assert terminal.process.wait(10) == 0


async def test_a_full_disk_is_told(place: Place) -> None:
    async with place.opened() as user:
        await built(user)
        await user.press("f", "e")
        await user.type("/dev/full")
        await tells(user, "exists. y replaces it")
        await user.confirm()
        await tells(user, "No space left")
        long = f"{place.models}/{'x' * 300}.cfg"
        for name, why in (
            ("/proc/x.cfg", "cannot be written: No such file"),
            ("/dev/full/x.cfg", "cannot be written: Not a directory"),
            (long, "cannot be written: File name too long"),
            ("~nobody-of-that-name/x", "there is no such home folder"),
        ):
            await user.press("w")
            await user.type(name)
            await tells(user, why)
            await user.press("escape", "escape")
        assert edits(user) == {"image": "float16"}


def test_read_only_writes_nothing(place: Place) -> None:
    before = contents(place.models)
    terminal = place.built("--read-only")
    terminal.press("f")
    terminal.sees("*1")
    for key in "weJY":
        terminal.press(key)
        in_terminal(terminal, "opened read-only: nothing is written")
        terminal.press(ESCAPE)
        terminal.loses("opened read-only")
    terminal.press("a")
    terminal.sees("analysed 17 layers")
    terminal.press("2e")
    in_terminal(terminal, "opened read-only: nothing is written")
    terminal.press("1c")
    terminal.sees("quantize_parameters")
    terminal.press("x\x13")
    terminal.sees("opened read-only")
    terminal.hang_up()
    terminal.process.wait(10)
    assert contents(place.models) == before
    assert sorted(path.name for path in place.models.iterdir()) == ["digits.onnx"]


# The model


async def test_a_model_that_goes_or_becomes_another_one_keeps_its_edits(place: Place) -> None:
    kept = place.model.read_bytes()
    async with place.opened() as user:
        await built(user)
        await user.press("f")
        await user.sees("status", "*1")
        place.model.unlink()
        await user.press("b")
        await tells(user, "built int8")
        await user.press("w", "enter")
        await tells(user, "saved ")
        await user.press(*["down"] * 7, "f")
        await user.sees("status", "*1")
        os.kill(user.app.host.pid or 0, 9)
        await tells(user, "ended by SIGKILL")
        await user.press("r")
        await tells(user, "does not exist")
        place.model.write_bytes(b"no model")
        await user.press("r")
        await tells(user, "digits.onnx")
        assert "*1" in user.text("status")
        place.model.write_bytes(kept)
        await user.press("r")
        await tells(user, "built int8")
        await user.until(lambda: edits(user) == {"image": "float16", "size": "float16"})


async def test_edits_of_another_version_of_the_model_are_offered_as_such(place: Place, tmp_path: Path) -> None:
    async with place.opened() as user:
        await built(user)
        await user.press("f")
        await user.sees("status", "*1")
    shutil.copy(place.model, tmp_path / "new.onnx")
    os.utime(tmp_path / "new.onnx", (1, 1))
    (tmp_path / "new.onnx").replace(place.model)
    async with place.opened() as user:
        await user.press("b")
        await tells(user, "of another version of the model")
        await user.sees("status", "*1")


# The app's own files

GARBAGE = (
    b"\0\xff\x80",
    b"[" * 50_000,
    b"a: &a [*a, *a]\n",
    b"{: : :",
    b"- 1\n- 2\n",
    b"? [a, b]\n: c\n",
    b'"\\ud800": 1',
)


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_in_the_app_s_own_files_is_told(engine_command: list[str], place: Place, garbage: bytes) -> None:
    from rknn_tui.bench.project import beside
    from rknn_tui.bench.recovery import Recovery
    from tests.rknn_tui.test_app import opened

    model = place.models / "layers-5.onnx"
    model.touch()
    own: list[Path] = [settings.config_folder() / "settings.yaml", settings.config_folder() / "keys.yaml"]
    own += [settings.state_folder() / "recent.json", Recovery(model).path, beside(model)]
    own += [model.with_name("layers-5.rknn-tui.jsonl"), settings.config_folder() / "themes" / "ansi-dark.yaml"]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(garbage)
    async with opened(engine_command, model) as user:
        told = " ".join(notice.text for notice in user.app.tune.notices)
        for name in ("settings.yaml", "keys.yaml", "layers-5.rknn-tui.yaml"):
            assert name in told
        await user.press("D")
        await user.type(str(demo.DATASET))
        await user.press("b")
        await user.until(lambda: bool(user.app.bench.built))
        await user.until(lambda: "journal" in " ".join(notice.text for notice in user.app.tune.notices))
        await user.press("down", "f")
        await user.sees("status", "*1")
    # What is not ours stays as it is.
    assert beside(model).read_bytes() == garbage
    assert model.with_name("layers-5.rknn-tui.jsonl").read_bytes() == garbage
    assert (settings.config_folder() / "settings.yaml").read_bytes() == garbage


def garbage_edits(content: dict[str, object]) -> None:
    content["wishes"] = {"no such tensor": "banana", "image": "int4"}
    content["ranges"] = {"image": [5, -5]}


def other_edits(content: dict[str, object]) -> None:
    content["wishes"] = {"no such tensor": "float16"}


@pytest.mark.parametrize("damage", [garbage_edits, other_edits])
async def test_kept_edits_that_fit_nothing_are_refused_in_words(
    place: Place, damage: Callable[[dict[str, object]], None]
) -> None:
    import json

    from rknn_tui.bench.recovery import Recovery

    async with place.opened() as user:
        await built(user)
        await user.press("f")
        await user.sees("status", "*1")
    path = Recovery(place.model).path
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    async with place.opened() as user:
        await user.press("b")
        await user.until(
            lambda: any("no such tensor" in notice.text for notice in user.app.tune.notices),
            lambda: str(user.app.tune.notices),
        )
        await user.until(lambda: edits(user) == {})
        await user.press("f")
        await user.until(lambda: edits(user) == {"image": "float16"})
