"""Keys, settings, themes, recent files: what the user's own files may say, and what happens when they are wrong."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rknn_tui import keymap, palette, settings
from rknn_tui.actions import ACTIONS, BY_ID, EVERYWHERE, PLACES
from rknn_tui.app import SCREENS
from rknn_tui.screens.moves import MOVES
from rknn_tui.screens.tune import TuneScreen


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return path


def test_no_default_key_has_two_meanings_in_one_place() -> None:
    for place in PLACES:
        keys = [key for action in ACTIONS if action.works_in(place) for key in action.keys]
        assert len(keys) == len(set(keys)), place
    assert len(BY_ID) == len(ACTIONS)


def test_every_action_can_be_performed_where_its_keys_work() -> None:
    screens: dict[str, type] = {"tune": TuneScreen, "cfg": TuneScreen}
    screens |= {place: getattr(importlib.import_module(module), name) for place, (module, name) in SCREENS.items()}
    for action in ACTIONS:
        # What works everywhere is the same everywhere.
        places = ["tune"] if EVERYWHERE in action.places else [place for place in action.places if place in screens]
        for place in places:
            assert action.id in MOVES or hasattr(screens[place], f"do_{action.id}"), (action.id, place)


def test_no_default_key_is_one_that_terminals_swallow() -> None:
    swallowed = {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+h", "ctrl+i", "ctrl+m", "ctrl+enter", "shift+enter"}
    for action in ACTIONS:
        # What comes first always arrives; ctrl+s, which people try, may come as well.
        assert action.keys[0] not in swallowed, action.id


def test_a_key_is_told_by_its_character_or_its_name() -> None:
    assert keymap.DEFAULT.action("left_square_bracket", "[") == "previous_bad"
    assert keymap.DEFAULT.action("G", "G") == "last"
    assert keymap.DEFAULT.action("ctrl+d", None) == "half_page_down"
    assert keymap.DEFAULT.action("f9", None) is None


def test_the_user_s_keys_replace_the_defaults_and_win_over_other_actions(tmp_path: Path) -> None:
    keys, faults = keymap.load(written(tmp_path, "export: E\nanalyse: [b, f5]\nworst: []\n"))
    assert faults == []
    assert keys.action("E", "E") == "export"
    assert keys.action("e", "e") is None
    assert keys.action("b", "b") == "analyse"
    assert keys.keys["build_int8"] == ()
    assert keys.action("W", "W") is None


def test_wrong_entries_are_told_and_the_rest_counts(tmp_path: Path) -> None:
    keys, faults = keymap.load(written(tmp_path, "exprot: E\nanalyse: 5\nopen: z\nsample: z\nquit: []\nexport: E\n"))
    assert keys.action("E", "E") == "export"
    assert keys.action("z", "z") == "open"
    assert keys.keys["quit"] == ("ctrl+q",)
    said = "\n".join(faults)
    for part in ("'exprot' (did you mean 'export'", "analyse: expected a key", "both open and sample", "quit with"):
        assert part in said


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=80) | st.text("[]{}:-&*!|>'\" \nabquit0.5", max_size=60).map(str.encode))
def test_no_file_of_the_user_stops_the_app(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    keys, _ = keymap.load(path)
    assert keys.keys["quit"]
    loaded, _ = settings.load(path)
    assert 0 <= loaded.bar_from < 1


def test_settings_are_read_and_wrong_ones_named(tmp_path: Path) -> None:
    assert settings.load(tmp_path / "none.yaml") == (settings.Settings(), [])
    loaded, faults = settings.load(
        written(tmp_path, "cosine_limit: 0\nsymbols: emoji\nmouse: 1\ntheme: ink\nspeed: 3\n")
    )
    assert (loaded.cosine_limit, loaded.theme, loaded.symbols, loaded.mouse) == (0.0, "ink", "auto", False)
    said = "\n".join(faults)
    for part in ("symbols: expected auto", "mouse: expected bool", "no setting 'speed'"):
        assert part in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trace_layers: -1", "trace_layers: expected a whole number from 0, got -1"),
        ("trace_layers: true", "trace_layers: expected int, got True"),
        ("read_only: yes please", "read_only: expected bool"),
        ("cosine_limit: 1" + "0" * 400, "cosine_limit: expected float, got 1000"),
        ("bar_from: .nan", "bar_from: expected a number from 0 to below 1"),
        ("theme_over_ssh: [a]", "theme_over_ssh: expected str"),
        ("a: &a [x]\nb: *a", "references"),
        ("a: " + "[" * 50, "nested too deeply"),
    ],
)
def test_each_setting_says_what_it_may_be(tmp_path: Path, text: str, said: str) -> None:
    loaded, faults = settings.load(written(tmp_path, text))
    assert loaded == settings.Settings()
    assert len(faults) == 1 and said in faults[0] and len(faults[0]) < len(str(tmp_path)) + 200


def test_another_theme_may_be_used_over_ssh() -> None:
    chosen = settings.Settings(theme="ink", theme_over_ssh="ansi-light")
    assert chosen.theme_in({}) == "ink"
    assert chosen.theme_in({"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}) == "ansi-light"
    assert settings.Settings(theme="ink").theme_in({"SSH_TTY": "/dev/pts/0"}) == "ink"
    assert settings.Settings().theme_in({"SSH_TTY": "/dev/pts/0"}).startswith("ansi-")


def test_code_in_a_settings_file_is_not_run(tmp_path: Path) -> None:
    path = written(tmp_path, f"theme: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    _, faults = settings.load(path)
    assert len(faults) == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", palette.names())
def test_every_theme_that_comes_along_is_whole(name: str) -> None:
    loaded, faults = palette.load(name)
    assert faults == []
    assert set(loaded.styles) == set(palette.ROLES)


def test_the_terminal_s_own_colours_are_among_the_themes() -> None:
    assert {"ansi-dark", "ansi-light"} <= set(palette.names())
    assert palette.load("ansi-dark")[0].ansi


def test_a_theme_that_is_missing_or_broken_falls_back_and_says_so(tmp_path: Path) -> None:
    loaded, faults = palette.load("../../etc/passwd")
    assert (loaded.name, len(faults)) == ("ansi-dark", 1)
    folder = settings.config_folder() / "themes"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("roles: {int8: no-such-colour, sky: blue, bad: bold red}\n")
    loaded, faults = palette.load("mine")
    assert len(faults) == 2
    assert str(loaded["bad"]) == "bold red"


def test_recent_files_come_latest_first_without_the_vanished(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx", "gone.onnx"):
        (tmp_path / name).touch()
        settings.remember_file(str(tmp_path / name))
    settings.remember_file(str(tmp_path / "a.onnx"))
    (tmp_path / "gone.onnx").unlink()
    assert settings.recent_files() == [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]
    first, second = settings.recent()
    assert first.opened >= second.opened > 0
    (settings.state_folder() / "recent.json").write_text("[1, {}")
    assert settings.recent_files() == []


def test_recent_files_of_before_there_were_times_are_known(tmp_path: Path) -> None:
    path = str(tmp_path / "a.onnx")
    Path(path).touch()
    settings.remember_file(path)
    for content in ([path], [[path, -1.0]], [[path, "soon"]], [[path, 1e300]], [[path], {}, [1, 2], path]):
        (settings.state_folder() / "recent.json").write_text(json.dumps(content))
        assert settings.recent() == [(path, 0.0)]
