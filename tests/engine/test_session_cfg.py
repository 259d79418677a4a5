"""The cfg of a live session as text: it says what the edits are, keeps what a person wrote, and is saved whole."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import FileError, QuantizationError
from engine.session_live import LiveSession
from engine.summaries import LARGEST_TEXT
from tests.engine.live_bench import Bench, bench_in, parameters, searched
from tests.engine.tuning.changing_networks import edits_of


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_in(tmp_path_factory.mktemp("live"))


@pytest.fixture
def bench(kept: Bench) -> Bench:
    """The same files, with a session that nothing was asked of."""
    return Bench(kept.folder, kept.fresh())


# A cfg's text


def test_the_text_says_what_the_edits_are(bench: Bench) -> None:
    session = bench.session
    state = session.apply({"act": "float16", "m": "int16"}, {"j": [-1.0, 2.5]})
    reading = session.cfg_read(session.cfg_text())
    assert (reading.wishes, reading.ranges, reading.faults) == (state.wishes, {"j": (-1.0, 2.5)}, ())
    assert session.edits() == reading


def test_writing_edits_into_a_text_leaves_the_rest_as_it_is(bench: Bench) -> None:
    session = bench.session
    lines = session.cfg_text().splitlines()
    lines[lines.index("custom_quantize_layers: {}")] = "custom_quantize_layers:  # mine\n    m: int16   # the product"
    text = "# by hand\n" + "\n".join(lines) + "\n# the end\n"
    changed = session.cfg_write(text, {"m": "float16", "hs": "float16"}, {"j": [-1.0, 2.5]})
    reading = session.cfg_read(changed)
    assert (reading.wishes, reading.ranges) == ({"m": "float16", "hs": "float16"}, {"j": (-1.0, 2.5)})
    for comment in ("# by hand", "# mine", "# the product", "# the end"):
        assert comment in changed
    assert session.cfg_write(changed, {"m": "int16"}, {}) == text


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_edits_survive_being_written_and_read(kept: Bench, data: st.DataObject) -> None:
    text = kept.session.cfg_text()
    for _ in range(2):
        edits = data.draw(edits_of(kept.base))
        text = kept.session.cfg_write(text, *parameters(edits))
        anew = kept.fresh().cfg_read(text) if data.draw(st.booleans()) else kept.session.cfg_read(text)
        rows = kept.base.table.rows
        other = {row: ends for row, ends in edits.ranges.items() if ends != (rows[row].min, rows[row].max)}
        assert (anew.wishes, anew.ranges, anew.faults) == (edits.wishes, other, ())


def test_faults_tell_their_lines_and_what_to_do(bench: Bench) -> None:
    text = bench.session.cfg_text().replace(
        "custom_quantize_layers: {}", "custom_quantize_layers:\n    score: float16\n    m: float32\n    hs: float16"
    )
    lines = text.splitlines()
    at = lines.index("    j:")
    place = next(index for index in range(at, len(lines)) if lines[index] == "        min:")
    lines[place + 1] = "        -   low"
    reading = bench.session.cfg_read("\n".join(lines))
    first = lines.index("    score: float16") + 1
    assert [(fault.line, fault.column) for fault in reading.faults] == [(first, 5), (first + 1, 8), (place + 2, 9)]
    assert reading.faults[0].message == (
        "'score': the model has no such tensor (did you mean 'scores' or 'scores_conv'?)"
    )
    assert "use int8" in reading.faults[1].message
    assert "list of one number" in reading.faults[2].message
    assert reading.wishes == {"hs": "float16"}


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("custom_quantize_layers:\n    m: [float16\n", 3, 1),
        ("- a\n", 1, 1),
        ("a: *b\n", 1, 4),
        ("a: \x00", 1, 4),
        ("é: 1\nb: \x07\n", 2, 4),
        ("a: \ud800\n", 1, 4),
        ("[" * 100, 1, 9),
        ("", 1, 1),
    ],
)
def test_a_text_that_is_no_cfg_has_one_fault_where_it_is(text: str, line: int, column: int, bench: Bench) -> None:
    reading = bench.session.cfg_read(text)
    assert [(fault.line, fault.column) for fault in reading.faults] == [(line, column)]
    assert (reading.wishes, reading.ranges) == ({}, {})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_is_more_than_a_reading_can_bear(kept: Bench, data: st.DataObject) -> None:
    text = kept.session.cfg_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    filling = data.draw(st.text(st.characters() | st.sampled_from("\n\t -[]{}:,#&*!|>'\"%@`?0."), max_size=12))
    reading = kept.session.cfg_read(text[:start] + filling + text[end:])
    places = [(fault.line, fault.column) for fault in reading.faults]
    assert all(fault.message for fault in reading.faults)
    assert all(line > 0 and column > 0 for line, column in places)


def test_what_another_cfg_would_do_is_told_and_not_done(bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    other = session.cfg_write(session.cfg_text(), {"act": "float16"}, {"j": [-1.0, 2.0]})
    before = session.apply({"m": "int16"}, {})
    told = session.compare_cfg(other)
    assert session.edits().wishes == {"m": "int16"}
    again = session.apply({"m": "int16"}, {})
    assert (again.quality, again.precisions, again.errors) == (before.quality, {}, {})
    session.apply({"act": "float16"}, {"j": [-1.0, 2.0]}, whole=False)
    full = session.live_start(bench.sample)
    assert dataclasses.replace(told, seconds=0.0, changed=()) == dataclasses.replace(full, seconds=0.0, changed=())
    with pytest.raises(QuantizationError, match="line 1"):
        session.compare_cfg("- a")


# Files


def test_saved_files_build_the_model_that_was_live(bench: Bench, tmp_path: Path) -> None:
    session = bench.session
    wishes = searched(bench)
    session.live_start(bench.sample)
    state = session.apply(wishes, {"j": [-1.0, 2.0]}, "1.0")
    assert state.quality != session.apply(wishes, {"j": [-1.0, 2.0]}).quality
    state = session.apply(wishes, {"j": [-1.0, 2.0]}, "1.0")
    text = "# mine\n" + session.cfg_text()
    paths = session.save_cfg(str(tmp_path / "net.quantization.cfg"), text)
    assert [Path(path).name for path in paths] == ["net.model", "net.data", "net.quantization.cfg"]
    again = LiveSession()
    again.hybrid_step2(*paths)
    assert again.live_start(bench.sample).quality == state.quality
    assert again.cfg_open(paths[2])["text"] == text
    saved = again.cfg_open(paths[2])
    changed = again.cfg_write(saved["text"], {}, {})
    assert again.save_cfg(paths[2], changed, saved["sha256"]) == paths
    third = LiveSession()
    third.hybrid_step2(*paths)
    assert third.live_start(bench.sample).quality == again.apply({}, {"j": [-1.0, 2.0]}).quality
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(path).name for path in paths)


def test_a_cfg_that_changed_on_disk_is_not_written_over(bench: Bench, tmp_path: Path) -> None:
    session, path = bench.session, tmp_path / "net.quantization.cfg"
    text = session.cfg_text()
    session.save_cfg(path, text)
    known = session.cfg_open(path)["sha256"]
    session.save_cfg(path, text)
    path.write_text("# another hand\n" + text)
    contents = {file: file.read_bytes() for file in tmp_path.iterdir()}
    session.apply({"m": "int16"}, {})
    with pytest.raises(FileError, match="changed on disk"):
        session.save_cfg(path, session.cfg_text(), known)
    with pytest.raises(FileError, match="exists already"):
        session.save_cfg(path, session.cfg_text())
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == contents


def test_a_file_that_cannot_be_written_leaves_the_old_ones(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "net.quantization.cfg"
    text = bench.session.cfg_text()
    bench.session.save_cfg(path, text)
    contents = {file: file.read_bytes() for file in tmp_path.iterdir() if file.suffix != ".data"}
    (tmp_path / "net.data").unlink()
    (tmp_path / "net.data").mkdir()
    known = bench.session.cfg_open(path)["sha256"]
    with pytest.raises(FileError, match="folder"):
        bench.session.save_cfg(path, f"{text}# more\n", known)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.suffix != ".data"} == contents
    for name in ("net.model", "net.data"):
        with pytest.raises(FileError, match="no name for a cfg"):
            bench.session.save_cfg(tmp_path / name, text)
    with pytest.raises(FileError, match="character 0"):
        bench.session.save_cfg(path, "\udcff", known)


def test_the_source_model_is_never_replaced(kept: Bench, tmp_path: Path) -> None:
    source = tmp_path / "net.model"
    source.write_bytes((kept.folder / "model.onnx").read_bytes())
    session = LiveSession()
    session.load(source)
    session.build(dataset=kept.dataset)
    before = source.read_bytes()
    with pytest.raises(FileError, match="was loaded"):
        session.save_cfg(tmp_path / "net.quantization.cfg", session.cfg_text())
    assert [file.name for file in tmp_path.iterdir()] == ["net.model"] and source.read_bytes() == before


def test_only_a_text_can_be_opened_as_a_cfg(bench: Bench, tmp_path: Path) -> None:
    text = "# ü\r\ncustom_quantize_layers: {}\r\n"
    (tmp_path / "a.cfg").write_bytes(text.encode())
    checksum = hashlib.sha256(text.encode()).hexdigest()
    assert bench.session.cfg_open(tmp_path / "a.cfg") == {"text": text, "sha256": checksum}
    (tmp_path / "b.cfg").write_bytes(b"\xff")
    (tmp_path / "c.cfg").write_bytes(b" " * (LARGEST_TEXT + 1))
    for name, says in (("b.cfg", "UTF-8"), ("c.cfg", "too large"), ("d.cfg", "does not exist")):
        with pytest.raises(FileError, match=says):
            bench.session.cfg_open(tmp_path / name)
