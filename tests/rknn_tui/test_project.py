"""A model's project: what the app remembers of it comes back, and no other file is harmed for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.cli_options import read_config_file
from engine.errors import FileError
from rknn_tui.bench import project
from rknn_tui.bench.project import Project, beside, elsewhere, load, save

NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=10)
PATHS = st.sampled_from(["/data/a.npy", "/näh/画像.png", os.fsdecode(b"/x\xff.npy"), "/a: b #c.txt", "/~/-"])
COUNTS = st.integers(1, 4000)
PROJECTS = st.builds(
    Project,
    inputs=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    input_size_list=st.none() | st.lists(st.lists(COUNTS, min_size=1).map(tuple), min_size=1, max_size=2).map(tuple),
    outputs=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    dataset=st.none() | PATHS,
    sample=st.lists(PATHS, max_size=2).map(tuple),
    config=st.fixed_dictionaries(
        {},
        optional={
            "target_platform": st.sampled_from(["rk3566", "rk3588"]),
            "std_values": st.lists(st.lists(st.floats(0.1, 1e6), min_size=1), min_size=1, max_size=2),
            "quantized_algorithm": st.sampled_from(["mmse", "auto"]),
            "equalization": st.booleans(),
            # It goes into a package as UTF-8.
            "custom_string": st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=10),
        },
    ),
    float16=st.booleans(),
    batch=COUNTS,
    cfg=st.none() | PATHS,
)
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models" / "net.onnx"


@shared_folder
@given(PROJECTS)
def test_what_was_saved_comes_back(model: Path, remembered: Project) -> None:
    path, told = save(model, remembered)
    assert (path, told) == (beside(model), [])
    found, faults = load(model)
    assert faults == []
    assert found == remembered
    assert path.read_bytes().startswith(b"# rknn-tui project")


@shared_folder
@given(PROJECTS, PROJECTS)
def test_nothing_of_an_older_project_is_left(model: Path, old: Project, new: Project) -> None:
    save(model, old)
    save(model, new)
    assert load(model) == (new, [])


def test_the_file_says_only_what_is_not_the_default_and_moves_with_the_model(model: Path, tmp_path: Path) -> None:
    given_ones = {"quantized_algorithm": "auto", "quantized_method": "channel", "equalization": None}
    inside = ("models/images/a.npy", str(tmp_path / "b.npy"))
    save("models/net.onnx", Project(dataset="models/d.txt", sample=inside, config=given_ones, cfg="models/n.cfg"))
    content = yaml.safe_load(beside(model).read_text())
    assert content == {
        "dataset": "d.txt",
        "sample": ["images/a.npy", str(tmp_path / "b.npy")],
        "quantized_algorithm": "auto",
        "cfg": "n.cfg",
    }
    (tmp_path / "models").rename(tmp_path / "moved")
    moved, _ = load("moved/net.onnx")
    assert (moved.dataset, moved.sample[0], moved.cfg) == ("moved/d.txt", "moved/images/a.npy", "moved/n.cfg")


def test_the_headless_commands_take_the_file_as_their_config(model: Path) -> None:
    save(
        model,
        Project(dataset="models/d.txt", sample=("a.npy",), config={"target_platform": "rk3588"}, batch=2, cfg="c"),
    )
    config, fields = read_config_file(beside(model))
    assert config == {"target_platform": "rk3588"}
    assert fields == {"dataset": str(model.parent / "d.txt"), "batch": 2}


def test_without_a_file_it_is_empty_and_yaml_is_not_loaded(model: Path) -> None:
    assert load(model) == (Project(), [])
    code = f"import sys; from rknn_tui.bench import project; project.load({str(model)!r}); print('yaml' in sys.modules)"
    root = Path(project.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_a_file_that_says_the_same_is_left_alone(model: Path) -> None:
    beside(model).write_text("dataset: d.txt   # of the night shift\nbatch: 2\n")
    remembered, faults = load(model)
    assert faults == []
    save(model, remembered)
    assert beside(model).read_text() == "dataset: d.txt   # of the night shift\nbatch: 2\n"


def test_unknown_and_unusable_values_are_told_and_stay(model: Path) -> None:
    text = "later: {a: [1, x]}\nbatch: two\nstd_values: [0]\nquantized_algorithm: mmse\nsample: []\ninputs: ''\n"
    beside(model).write_text(text)
    remembered, faults = load(model)
    assert remembered == Project(config={"quantized_algorithm": "mmse"})
    said = "\n".join(faults)
    for part in ("unknown 'later'", "batch: expected a positive integer, got 'two'", "std_values: a std of zero"):
        assert part in said
    assert len(faults) == 5
    save(model, Project(float16=True, inputs=("x",)))
    content = yaml.safe_load(beside(model).read_text())
    kept = {"later": {"a": [1, "x"]}, "batch": "two", "std_values": [0], "sample": []}
    assert content == {"inputs": ["x"], "float16": True, **kept}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version: 3\nservices: {}\n", "is no project of rknn-tui"),
        (b"- a\n- b\n", "is no project of rknn-tui"),
        (b"just text", "is no project of rknn-tui"),
        (b"# rknn-tui project\n- a\n", "expected 'name: value' lines"),
        (b"batch: [2\n", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"a: &a [x]\nbatch: *a\n", "references"),
        (b"batch: " + b"[" * 100, "nested too deeply"),
        (b"batch: 2\n" + b"#" * project.LARGEST_PROJECT, "is too large"),
        (b"!!python/object/apply:os.mkdir ['made']\n", "is not valid YAML"),
    ],
)
def test_another_file_of_that_name_is_told_and_never_written_over(model: Path, content: bytes, said: str) -> None:
    beside(model).write_bytes(content)
    remembered, (fault,) = load(model)
    assert remembered == Project()
    assert said in fault and str(beside(model)) in fault
    with pytest.raises(FileError, match=said):
        save(model, Project(batch=2))
    assert beside(model).read_bytes() == content
    assert not Path("made").exists()


def test_a_folder_or_pipe_of_that_name_stops_nothing(model: Path) -> None:
    beside(model).mkdir()
    assert "is no file" in load(model)[1][0]
    beside(model).rmdir()
    os.mkfifo(beside(model))
    assert "is no file" in load(model)[1][0]
    with pytest.raises(FileError, match="is no file"):
        save(model, Project(batch=2))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to")
def test_where_the_folder_cannot_be_written_the_app_s_own_has_it() -> None:
    model = Path("/proc/net.onnx")
    path, (told,) = save(model, Project(batch=2, dataset="/data/d.txt"))
    assert path == elsewhere(model)
    assert "/proc/net.rknn-tui.yaml cannot be written" in told and str(path) in told
    assert load(model) == (Project(batch=2, dataset="/data/d.txt"), [])


def test_of_two_files_the_later_one_counts(model: Path) -> None:
    save(model, Project(batch=2))
    elsewhere(model).parent.mkdir(parents=True)
    elsewhere(model).write_text("batch: 3\n")
    os.utime(beside(model), (1, 1))
    assert load(model)[0].batch == 3
    # Saved beside the model again, though nothing changes there, that is the one.
    save(model, Project(batch=2))
    assert load(model)[0].batch == 2


def test_models_with_a_link_s_name_share_a_project_elsewhere(model: Path, tmp_path: Path) -> None:
    model.touch()
    (tmp_path / "link.onnx").symlink_to(model)
    assert elsewhere(tmp_path / "link.onnx") == elsewhere("models/net.onnx") != elsewhere("models/other.onnx")


WORDS = [
    "inputs",
    "batch",
    "std_values",
    "cfg",
    "sample",
    "config",
    ": ",
    "- ",
    "\n",
    "[",
    "]",
    "2",
    "x",
    "null",
    "1e999",
]


@shared_folder
@given(st.binary(max_size=60) | st.lists(st.sampled_from(WORDS)).map("".join).map(str.encode))
def test_no_file_stops_the_app(model: Path, content: bytes) -> None:
    beside(model).write_bytes(content)
    remembered, faults = load(model)
    assert isinstance(remembered, Project)
    assert all(str(beside(model)) in fault for fault in faults)
    try:
        save(model, remembered)
    except FileError:
        assert beside(model).read_bytes() == content
    else:
        assert load(model)[0] == remembered


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@shared_folder
@given(st.dictionaries(st.sampled_from([*project._SETTINGS, *project._READERS]), VALUES, max_size=4))
def test_any_value_is_used_or_told(model: Path, content: dict[str, Any]) -> None:
    beside(model).write_text("# rknn-tui project\n" + yaml.safe_dump(content))
    remembered, faults = load(model)
    assert len(faults) <= len(content)
    save(model, remembered)
    assert load(model) == (remembered, faults)
