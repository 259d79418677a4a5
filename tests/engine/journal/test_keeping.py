"""Journals: lines that are read or refused with a reason, files that no crash spoils, shorter ways to the same."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import EngineError, FileError, InputError
from engine.history import EditState
from engine.journal import keeping as journal
from engine.journal.entries import HEADER, MOST_LINES, VERBS
from engine.journal.keeping import Entry, Journal, change, compact, parse, written
from engine.journal.steps import EntrySteps, edits_after, taken

NAMES = st.sampled_from("abcdef")
TEXTS = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12)
PRECISIONS = st.sampled_from(["int8", "int16", "float16"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ENDS = st.tuples(NUMBERS, NUMBERS).map(sorted)
COUNTS = st.integers(1, 1000)
FLAGS = st.booleans()
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": TEXTS,
    "inputs": st.lists(TEXTS, min_size=1, max_size=3),
    "input_size_list": st.lists(st.lists(COUNTS, min_size=1, max_size=4), min_size=1, max_size=2),
    "outputs": st.lists(TEXTS, min_size=1, max_size=3),
    "weights": TEXTS,
    "cfg": TEXTS,
    "settings": st.fixed_dictionaries(
        {"target_platform": st.sampled_from(["rk3588", "RV1106"])},
        optional={
            "mean_values": st.lists(st.lists(NUMBERS, min_size=1, max_size=3), max_size=2),
            "custom_string": TEXTS,
        },
    ),
    "dataset": TEXTS,
    "do_quantization": FLAGS,
    "batch": COUNTS,
    "wishes": st.dictionaries(TEXTS, PRECISIONS, max_size=3),
    "ranges": st.dictionaries(TEXTS, ENDS, max_size=3),
    "biases": st.just("") | st.tuples(COUNTS, COUNTS).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    "joined": FLAGS,
    "cosine": NUMBERS,
    "cost": NUMBERS,
    "layers": COUNTS,
    "precision": st.sampled_from(["int16", "float16"]),
    "run": COUNTS,
    "candidate": st.integers(0, 50),
    "path": TEXTS,
}


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any entry of any verb, with any of its arguments."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    given_ones = {n: VALUES[n] for n, argument in VERBS[verb].items() if argument.needed}
    optional = {n: VALUES[n] for n, argument in VERBS[verb].items() if not argument.needed}
    arguments = draw(st.fixed_dictionaries(given_ones, optional=optional))
    if verb == "set":
        arguments["wishes"].update(draw(st.dictionaries(TEXTS, st.just(""), max_size=1)))
    if verb == "range":
        arguments["ranges"].update(draw(st.dictionaries(TEXTS, st.none(), max_size=1)))
    return Entry(verb, arguments)


def lines(*objects: dict[str, Any]) -> str:
    return "\n".join([HEADER, *map(json.dumps, objects)]) + "\n"


# Reading and writing


@given(st.lists(entries(), max_size=5))
def test_what_was_written_is_read_back(done: list[Entry]) -> None:
    text = HEADER + "\n" + "".join(map(written, done))
    assert text.isascii() and text.count("\n") == len(done) + 1
    found = parse(text)
    assert list(found) == done
    assert [entry.line for entry in found] == list(range(2, len(done) + 2))


TOKENS = st.sampled_from(
    [*VERBS, '{"verb": "', '"}', "{}", "[]", "\n", '"wishes": {', '"a": "int8"', "}", ", ", "null", "1e999", "NaN"]
)


@given(st.text() | st.lists(TOKENS | st.text(max_size=3)).map("".join).map(lambda text: f"{HEADER}\n{text}"))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        found = parse(text, "j.jsonl")
    except FileError as error:
        assert error.where.startswith("j.jsonl")
    else:
        assert all(entry.verb in VERBS for entry in found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_value_of_an_argument_is_taken_or_refused_with_the_argument_s_name(data: st.DataObject) -> None:
    verb = data.draw(st.sampled_from([verb for verb, known in VERBS.items() if known]))
    name = data.draw(st.sampled_from(sorted(VERBS[verb])))
    others = {n: data.draw(VALUES[n]) for n, argument in VERBS[verb].items() if argument.needed and n != name}
    inner = JSON | st.dictionaries(st.sampled_from(["a", "mean_values", "custom_string", "target_platform"]), JSON)
    value = data.draw(inner)
    try:
        entry = Entry(verb, {**others, name: value})
    except InputError as error:
        assert name in f"{error.where} {error.what}"
    else:
        assert parse(f"{HEADER}\n{written(entry)}") == (entry,)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"verb": "sett", "wishes": {}}', "unknown verb 'sett' (did you mean 'set'"),
        ('{"verb": ["set"]}', "unknown verb"),
        ('{"wishes": {}}', "has no verb"),
        ('{"verb": "set"}', "set: 'wishes' is missing"),
        ('{"verb": "undo", "count": 2}', "undo: unknown argument 'count'"),
        ('{"verb": "set", "wishes": {"a": "int4"}}', "set: wishes: expected a mapping of tensors to int8"),
        ('{"verb": "cfg", "wishes": {"a": ""}, "ranges": {}}', "cfg: wishes: expected"),
        ('{"verb": "range", "ranges": {"a": [2, 1]}}', "range: ranges: expected a mapping of rows to [min, max]"),
        ('{"verb": "range", "ranges": {"a": [0, 1e999]}}', "range: ranges: expected"),
        ('{"verb": "range", "ranges": {"a": [0, NaN]}}', "is not an entry: NaN is no number"),
        ('{"verb": "undo", "verb": "redo"}', "is not an entry: a name stands there twice"),
        ('{"verb": "build", "batch": true}', "build: batch: expected a positive integer"),
        ('{"verb": "config", "settings": {"mean_valeus": []}}', "unknown setting 'mean_valeus' (did you mean"),
        ('{"verb": "config", "settings": {"mean_values": [1' + "0" * 400 + "]}}", "config: settings: expected"),
        ('{"verb": "save", "cfg": "a\\u0000b"}', "save: cfg: expected a path"),
        ("[" * 100_000, "is not an entry: nested too deeply"),
        ('{"verb": "save", "cf', "is not an entry"),
        ('"undo"', "is not an entry: expected an object"),
    ],
)
def test_a_line_that_is_no_entry_is_told_with_its_number(line: str, said: str) -> None:
    with pytest.raises(FileError) as caught:
        parse(f'{HEADER}\n\n{{"verb": "undo"}}\n{line}\n', "j.jsonl")
    assert str(caught.value).startswith("j.jsonl line 4")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"verb": "undo"}\n', "is no journal of rknn-tui"),
        ("#!/bin/sh\n", "is no journal of rknn-tui"),
        ('{"journal": "rknn-tui", "version": 2}\n', "is of another version"),
        (HEADER + "\n" * (MOST_LINES + 2), "has more than 100,000 lines"),
        (HEADER + " " * (17 << 20), "is larger than 16 MB"),
    ],
)
def test_what_is_no_journal_is_refused(text: str, said: str) -> None:
    with pytest.raises(FileError, match=said):
        parse(text)


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_a_last_line_that_a_crash_cut_short_is_left_out_aloud(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    whole = written(Entry("set", {"wishes": {"a": "int8"}})).rstrip("\n")
    with caplog.at_level(logging.WARNING, "engine"):
        assert parse(f'{HEADER}\n{{"verb": "undo"}}\n{whole[:cut]}', "j.jsonl") == (Entry("undo"),)
    assert "j.jsonl line 3 was cut short" in caplog.text
    # A line that lacks nothing but its end is whole.
    assert len(parse(f"{HEADER}\n{whole}")) == 1


def test_a_journal_of_which_a_crash_left_nothing_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    assert parse("") == parse(HEADER[:9]) == parse(f"{HEADER}\n") == ()


def test_files_below_the_journal_are_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project" / "images").mkdir(parents=True)
    inputs = ["project/images/a.npy", str(tmp_path / "project" / "b.npy"), "elsewhere/c.npy", "project/../d.npy"]
    found = journal.write("project/j.jsonl", [Entry("analyze", {"inputs": inputs})])
    (entry,) = journal.read(found)
    assert entry["inputs"] == ("images/a.npy", "b.npy", str(tmp_path / "elsewhere/c.npy"), str(tmp_path / "d.npy"))


def test_names_that_are_no_unicode_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"photo\xff.npy")
    path = journal.write(tmp_path / "j.jsonl", [Entry("save", {"cfg": str(tmp_path / name)})])
    assert journal.read(path)[0]["cfg"] == name
    path.write_bytes(path.read_bytes().replace(b"\\udcff", b"\xff"))
    assert journal.read(path)[0]["cfg"] == name


# Steps


STATES = st.builds(
    EditState,
    st.dictionaries(NAMES, PRECISIONS),
    st.dictionaries(NAMES, ENDS.map(tuple)),
    st.sampled_from(["", "1.0", "2.7"]),
)


@given(STATES, STATES)
def test_a_step_between_any_edits_is_an_entry(before: EditState, after: EditState) -> None:
    entry = change(before, after, joined=True)
    found = edits_after(entry, before)
    assert found == after
    assert found is not None and list(found.wishes) == list(after.wishes)
    assert entry["joined"] is True


def test_a_step_is_told_in_few_words() -> None:
    state = EditState({"a": "int8", "b": "int16"}, {"c": (0.0, 1.0)})
    assert change(state, state.with_wishes({"b": ""})) == Entry("set", {"wishes": {"b": ""}})
    assert change(state, state.with_ranges({"c": None})) == Entry("range", {"ranges": {"c": None}})
    assert change(state, EditState(state.wishes, state.ranges, "1.0"))["biases"] == "1.0"
    assert "biases" not in change(state, state).arguments


def test_undo_takes_back_what_was_joined_to_a_step_with_it() -> None:
    steps = EntrySteps(EditState({"x": "int8"}))
    for name, joined in (("a", False), ("b", False), ("c", True), ("d", True)):
        steps.do(Entry("set", {"wishes": {name: "int16"}, "joined": joined}))
    steps.do(Entry("undo"))
    assert list(steps.state.wishes) == ["x", "a"]
    steps.do(Entry("redo"))
    assert list(steps.state.wishes) == ["x", "a", "b", "c", "d"]
    for _ in range(3):
        steps.do(Entry("undo"))
    assert list(steps.state.wishes) == ["x"]


# The shortest way


def lines_of(run: int, state: EditState, candidate: int) -> dict[str, str]:
    """A stand-in for searches: what it finds follows from the edits that it begins with."""
    return {**state.wishes, f"found{len(state.wishes)}-{len(state.ranges)}-{candidate}": "float16"}


def outcome(done: Sequence[Entry], start: EditState) -> dict[str, Any]:
    """What entries come to: the edits at the end, and what each file holds."""
    config: Any = None
    steps, origin = EntrySteps(start), ""
    searches: dict[int, EditState] = {}
    sample, measured = None, []
    files: dict[str, Any] = {}
    for entry in done:
        if entry.verb == "config":
            config = entry["settings"]
        elif entry.verb in ("open", "build"):
            steps, searches, sample = EntrySteps(start), {}, None
            level = (config or {}).get("optimization_level")
            origin = f"{entry['model']} at {level}" if entry.verb == "open" else f"{origin.partition(';')[0]}; {config}"
        elif entry.verb == "tune":
            searches[entry["run"] or max(searches, default=0) + 1] = steps.state
        elif entry.verb == "take":
            begun = searches[entry["run"]]
            steps.do(entry, taken(entry, steps.state, lines_of(entry["run"], begun, entry["candidate"])))
        elif entry.verb == "analyze":
            sample = entry["inputs"]
            measured.append(sample)
        elif entry.verb in ("save", "export"):
            files[entry["cfg"] or entry["path"]] = (steps.state, origin, biases(steps.state, searches))
        else:
            steps.do(entry)
    return {
        "edits": steps.state,
        "origin": origin,
        "files": files,
        "sample": sample,
        "biases": biases(steps.state, searches),
    }


def biases(state: EditState, searches: dict[int, EditState]) -> Any:
    """What the biases in force were corrected for."""
    return searches[int(state.biases.partition(".")[0])] if state.biases else None


@st.composite
def courses(draw: st.DrawFn) -> list[Entry]:
    """Entries as a person makes them: a candidate is taken after a search only."""
    found: list[Entry] = []
    if draw(FLAGS):
        found.append(Entry("open", {"model": "m.onnx"}))
    runs = 0
    for _ in range(draw(st.integers(0, 25))):
        known = ["set"] * 6 + ["range"] * 3 + ["undo"] * 4 + ["redo"] * 2 + ["cfg", "tune", "save", "export", "analyze"]
        verb = draw(st.sampled_from(known + ["take"] * 4 * bool(runs) + ["config", "build", "open"]))
        joined = {"joined": True} if draw(st.integers(0, 3)) == 0 else {}
        arguments: dict[str, Any] = {}
        if verb == "set":
            arguments = {"wishes": draw(st.dictionaries(NAMES, PRECISIONS | st.just(""), max_size=3)), **joined}
        elif verb == "range":
            arguments = {"ranges": draw(st.dictionaries(NAMES, ENDS | st.none(), max_size=2)), **joined}
        elif verb == "cfg":
            arguments = {"wishes": draw(st.dictionaries(NAMES, PRECISIONS, max_size=3)), "ranges": {}, **joined}
            arguments["ranges"] = draw(st.dictionaries(NAMES, ENDS, max_size=2))
            if draw(FLAGS):
                arguments["biases"] = f"{draw(st.integers(1, runs))}.0" if runs and draw(FLAGS) else ""
        elif verb == "tune":
            runs += 1
            arguments = {"dataset": "d.txt", **({"run": runs} if draw(FLAGS) else {})}
        elif verb == "take":
            arguments = {"run": draw(st.integers(1, runs)), "candidate": draw(st.integers(0, 1)), **joined}
        elif verb in ("save", "export"):
            arguments = {"cfg" if verb == "save" else "path": draw(st.sampled_from(["one", "two"]))}
        elif verb == "analyze":
            arguments = {"inputs": [draw(st.sampled_from(["a.npy", "b.npy"]))]}
        elif verb == "config":
            arguments = {"settings": {"optimization_level": draw(st.integers(2, 3)), "equalization": draw(FLAGS)}}
        elif verb == "open":
            arguments, runs = {"model": draw(st.sampled_from(["m.onnx", "n.onnx"]))}, 0
        elif verb == "build":
            runs = 0
        found.append(Entry(verb, arguments))
    return found


@settings(max_examples=300)
@given(courses(), STATES.map(lambda state: EditState(state.wishes, state.ranges)))
@pytest.mark.slow
def test_the_shortest_way_leads_to_the_same(done: list[Entry], start: EditState) -> None:
    short = compact(done)
    assert outcome(short, start) == outcome(done, start)
    assert len(short) <= len(done)
    assert len(compact(short)) <= len(short)


def wish(**wishes: str) -> Entry:
    return Entry("set", {"wishes": wishes})


OPENED = [Entry("open", {"model": "m.onnx"}), Entry("build", {"dataset": "d.txt"})]


def test_what_was_tried_and_undone_is_gone() -> None:
    done = [*OPENED, wish(a="int16"), Entry("undo"), wish(b="int16"), wish(b="", c="float16"), wish(d="int8")]
    assert compact(done) == (*OPENED, wish(b="", c="float16", d="int8"))


def test_only_the_last_build_counts_where_the_one_before_gave_no_file() -> None:
    config = [Entry("config", {"settings": {"quantized_algorithm": name}}) for name in ("normal", "mmse")]
    again = [config[0], *OPENED, wish(a="int8"), config[1], OPENED[1], wish(b="int8")]
    assert compact(again) == (config[1], *OPENED, wish(b="int8"))
    again.insert(4, Entry("export", {"path": "a.rknn"}))
    assert compact(again) == (*again[:5], *again[5:])


def test_a_file_keeps_the_edits_that_it_was_saved_with() -> None:
    save = [Entry("save", {"cfg": name}) for name in ("x.cfg", "y.cfg")]
    done = [wish(a="int8"), wish(b="int8"), save[0], Entry("undo"), wish(c="int8"), save[1], wish(d="int8"), save[1]]
    assert compact(done) == (*done[:4], wish(c="int8", d="int8"), save[1])


def test_a_search_stays_as_long_as_something_of_it_is_in_force() -> None:
    tune, take = Entry("tune", {"dataset": "d.txt"}), [Entry("take", {"run": n, "candidate": 0}) for n in (1, 2)]
    done = [wish(a="int8"), tune, take[0], wish(b="int8"), tune, take[1], wish(c="int8")]
    second = Entry("tune", {"dataset": "d.txt", "run": 2})
    # The second search began with what the first one had found.
    assert compact(done) == (*done[:1], Entry("tune", {"dataset": "d.txt", "run": 1}), *done[2:4], second, *done[5:])
    undone = [*done[:3], Entry("undo"), *done[4:]]
    assert compact(undone) == (wish(a="int8"), second, take[1], wish(c="int8"))


def test_the_last_analysis_comes_first() -> None:
    analyses = [Entry("analyze", {"inputs": [name]}) for name in ("a.npy", "b.npy")]
    done = [*OPENED, analyses[0], wish(a="int8"), analyses[1], wish(b="int8")]
    assert compact(done) == (*OPENED, analyses[1], wish(a="int8", b="int8"))


# The file


def test_each_entry_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "models" / "m.rknn-tui.jsonl"
    path.parent.mkdir()
    assert journal.beside(path.parent / "m.onnx") == path
    kept = Journal(path)
    assert not path.exists()
    assert kept.add("open", {"model": str(path.parent / "m.onnx"), "inputs": None}) == ""
    assert path.read_text() == f'{HEADER}\n{{"verb": "open", "model": "m.onnx"}}\n'
    kept.add(Entry("undo"))
    kept.close()
    again = Journal(path)
    again.add("redo")
    assert [entry.verb for entry in journal.read(path)] == ["open", "undo", "redo"]
    assert [entry.verb for entry in again.entries] == ["redo"]
    again.close()


@pytest.mark.parametrize("left", ["", HEADER[:7], HEADER, f"{HEADER}\n", f'{HEADER}\n{{"verb": "un', f"{HEADER}\n\0\0"])
def test_a_journal_goes_on_after_a_crash(tmp_path: Path, left: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(left)
    kept = Journal(path)
    assert kept.add("redo") == ""
    kept.close()
    assert journal.read(path) == (Entry("redo"),)


def test_an_entry_that_lacks_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(f'{HEADER}\n{{"verb": "undo"}}')
    kept = Journal(path)
    kept.add("redo")
    kept.close()
    assert journal.read(path) == (Entry("undo"), Entry("redo"))


@pytest.mark.parametrize("content", ["#!/bin/sh\n", '{"journal": "rknn-tui", "version": 2}\n', "\0" * 40, "{}"])
def test_another_file_is_left_alone_and_memory_goes_on(tmp_path: Path, content: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(content)
    kept = Journal(path)
    assert str(path) in kept.add("undo")
    assert kept.add("redo") == ""
    assert path.read_text() == content
    assert kept.entries == (Entry("undo"), Entry("redo"))


def test_what_keeps_the_file_from_being_written_is_told_once(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "no" / "j.jsonl", "No such file"), (tmp_path, "Is a directory")):
        kept = Journal(path)
        assert why in kept.add("undo")
        assert kept.add("undo") == ""
    os.mkfifo(tmp_path / "pipe")
    assert "it is no file" in Journal(tmp_path / "pipe").add("undo")
    assert Journal(None).add("undo") == ""


def test_two_processes_do_not_write_one_journal(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "j.jsonl"), Journal(tmp_path / "j.jsonl")
    first.add("undo")
    assert "another process" in second.add("redo")
    first.add("redo")
    first.close()
    assert journal.read(tmp_path / "j.jsonl") == (Entry("undo"), Entry("redo"))


def test_a_full_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(HEADER + "\n" + '{"verb": "undo"}\n' * (MOST_LINES - 2))
    kept = Journal(path)
    assert kept.add("redo") == ""
    assert "full" in kept.add("redo")
    assert len(journal.read(path)) == MOST_LINES - 1


def test_a_disk_without_room_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Journal(tmp_path / "j.jsonl")
    kept.add("undo")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:5]))
    assert "full" in kept.add("redo")
    assert journal.read(tmp_path / "j.jsonl") == (Entry("undo"),)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: HEADER.encode() + b"\n" + tail))
def test_no_file_stops_the_journal_and_none_of_another_kind_is_touched(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.jsonl"
    path.write_bytes(data)
    kept = Journal(path)
    told = kept.add("undo")
    kept.close()
    if told:
        assert path.read_bytes() == data
    else:
        assert path.read_bytes().endswith(b'{"verb": "undo"}\n')


def test_a_script_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text("old")
    path.chmod(0o640)
    assert journal.write(path, compact([wish(a="int8"), Entry("undo")])) == path
    assert path.read_text() == f"{HEADER}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(EngineError, match="cannot be written"):
        journal.write(tmp_path / "no" / "script.jsonl", ())
