"""A .rknn of the vendor's compiler is shown with its lanes and nothing more; an encrypted one says what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.files.encryption import encrypt
from rknn_tui.actions import ACTIONS
from tests.engine.files.vendor.vendor_files import full
from tests.engine.files.vendor.vendor_models import small
from tests.rknn_tui.real_app import Place
from tests.rknn_tui.test_app import User, opened

RAW_KEY = bytes(range(32))
REFUSED = "a vendor's .rknn runs only on a board: for that, open the source model (o)"
LOOKING = {
    *("cancel", "restart", "copy", "maximise", "filter", "next_match", "previous_match", "jump", "count", "order"),
    *("mark", "mark_range", "mark_op", "mark_type", "mark_block", "mark_where", "unmark", "sort", "sort_reverse"),
    *("fold", "fold_all", "previous_on_lane", "next_on_lane", "down", "up", "half_page_down", "half_page_up"),
    *("page_down", "page_up", "first", "last", "screen_tune", "screen_devices", "screen_jobs", "screenshot", "redraw"),
    *("messages", "theme", "commands", "keys", "back", "open", "quit"),
}
"""What can be done with a file that is only looked at."""


def asked_from_now_on(user: User) -> list[str]:
    """The methods that the engine is asked for, as they come."""
    calls, asked = user.app.bench.calls, []
    start = calls.start

    def noted(method: str, params: Mapping[str, Any], answer: Any) -> int:
        asked.append(method)
        return start(method, params, answer)

    calls.start = noted  # type: ignore[method-assign]
    return asked


async def open_with_o(user: User, path: Path) -> None:
    """Another model, as a person picks it; what it holds the engine's script knows, where it is none of this test's."""
    if not path.exists():
        path.touch()
    user.app.tune.tell(user.app.open_file(str(path)))
    await user.until(lambda: user.app.bench.job is None, lambda: user.text("message"))


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_a_vendors_file_is_shown_with_lanes_types_and_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "board.RKNN"
    path.write_bytes(full(small()))
    async with opened(None, path, size) as user:  # type: ignore[arg-type]
        await user.sees("message", "4 layers")
        assert user.says("message", "a vendor's .rknn, read-only; o opens the source model; ' shows 1 note")
        assert user.app.tune.notices[-2].text.startswith("compiled by the vendor's compiler 2.5.0: it runs only")
        status = user.text("status")
        assert "rk3588  int8+float16  vendor's, read-only" in status
        rows = [user.row(place) for place in range(4)]
        assert [row.split()[-1] for row in rows] == ["int8", "int8", "fp16", "int8"]
        assert "◉─╯" in rows[3], "the addition reads the convolution past the step on the CPU"
        assert "Softmax (CPU)" in rows[2]
        assert "ms" not in user.text("header") + status, "nothing is estimated of it"
        assert "mem" not in user.text("header") + status
        await user.press("j")
        await user.sees("detail", "ConvRelu 1×8×8×8 int8")
        assert user.says("detail", "from conv_a")
        assert "estimated" not in user.text("detail")
        assert [word for word in ("filter", "open") if word in user.text("keys")] == ["filter", "open"]
        assert not any(word in user.text("keys") for word in ("int8", "analyse", "export", "target", "dataset"))
        assert user.app.bench.command_line() == f"rknn-tui inspect {path}"


async def test_keys_that_change_or_judge_a_model_only_say_what_to_do(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        bench, tune = user.app.bench, user.app.tune
        await user.until(lambda: bench.costs.known)
        await open_with_o(user, model_folder / "vendor-30.rknn")
        await user.sees("message", "30 layers, 4.3k parameters: a vendor's .rknn")
        asked, before = asked_from_now_on(user), sorted(model_folder.iterdir())
        # From the list of commands, with all of these, and by their keys.
        for action in ACTIONS:
            if action.works_in("tune") and action.id not in LOOKING:
                tune.drop_message()
                tune.perform(action.id)
                assert user.text("message").strip() == REFUSED, action.id
                assert tune.question is None and user.app.screen is tune, action.id
        for key in ("b", "space", "e", "w", "c", "2"):
            tune.drop_message()
            await user.press(key)
            assert user.text("message").strip() == REFUSED, key
        await user.press("3", "2")
        assert REFUSED in user.app.screen.line("message").text, "also on a screen beside"  # type: ignore[attr-defined]
        await user.press("1", "j", "m", "l", "z", "n", "r")
        bench.compare_targets()
        await user.pilot.pause(0.4)
        assert asked == [], "the engine holds another model"
        assert not bench.costs.wanted and bench.cost_totals is None
        assert sorted(model_folder.iterdir()) == before
        await user.press("q")
    assert user.app.return_code == 0


async def test_the_source_opens_after_it_with_its_own_target_and_builds(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "vendor-30.rknn", inputs=["x"]) as user:
        await user.sees("message", "' shows 2 notes")
        assert "not used for a compiled file: inputs" in [notice.text for notice in user.app.tune.notices]
        assert user.app.bench.target == "rk3588"
        await open_with_o(user, model_folder / "layers-40.onnx")
        await user.sees("message", "40 layers")
        assert "rk3566  not built" in user.text("status") and "read-only" not in user.text("status")
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await open_with_o(user, model_folder / "package-7.rknn")
        await user.sees("message", "30 layers, 123.5k parameters: b quantizes to int8")
        assert not user.app.bench.board_only, "what is no vendor's file loads as ever"


async def test_a_damaged_file_says_so_and_a_whole_copy_opens(tmp_path: Path) -> None:
    path, whole = tmp_path / "board.rknn", full(small())
    path.write_bytes(whole[: len(whole) // 2])
    async with opened(None, path) as user:  # type: ignore[arg-type]
        await user.sees("message", "board.rknn: is cut short")
        assert user.app.tune.notices[-1].level == "error"
        path.write_bytes(b"PK\x03\x04 not a package")
        await user.press("r")
        await user.sees("message", "is not a package of this tool")
        path.write_bytes(whole)
        await user.press("r")
        await user.sees("message", "4 layers")


async def test_a_missing_key_is_told_whole_and_unsaved_edits_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKNN_TUI_KEY", raising=False)
    monkeypatch.delenv("RKNN_TUI_KEY_FILE", raising=False)
    place = Place(tmp_path)
    (place.models / "plain.rknn").write_bytes(full(small()))
    secret = place.models / f"{'a-name-as-long-as-names-of-models-are-' * 3}.crypt.rknn"
    encrypt(place.models / "plain.rknn", secret, RAW_KEY)
    before = secret.read_bytes()
    async with place.opened() as user:
        await user.press("b")
        await user.sees("message", "built int8")
        await user.press("j", "f")
        await user.sees("status", "*1")
        await open_with_o(user, secret)
        told = "needs a key, and none was given (leave, set RKNN_TUI_KEY or RKNN_TUI_KEY_FILE, then open it again)"
        shown = "".join(user.text("message").split())
        assert shown == "".join(f"{secret}: {told}".split()), "all of it, at 80x24"
        kept = "1 unsaved edit of digits.onnx kept: they come back when it is opened and built"
        assert kept in [notice.text for notice in user.app.tune.notices]
        assert secret.read_bytes() == before
        assert "open" in user.text("keys")
        await open_with_o(user, place.model)
        await user.press("b")
        await user.until(lambda: user.app.bench.unsaved == 1, lambda: user.text("message"))
        assert any("that were not saved are back" in notice.text for notice in user.app.tune.notices)


async def test_an_export_does_not_offer_to_replace_the_encrypted_file(
    engine_command: list[str], model_folder: Path
) -> None:
    path = model_folder / "layers-9.crypt.rknn"
    path.touch()
    async with opened(engine_command, path) as user:
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await user.press("e")
        assert user.app.tune.prompt.value == str(model_folder / "layers-9.rknn")
