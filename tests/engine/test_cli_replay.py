"""The commands `replay` and `set`: what was done in the app is done again without it, and a cfg is changed by rule."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import cli, demo, layer_filter
from engine.errors import InputError
from engine.journal import keeping as journal
from engine.journal.entries import HEADER
from engine.journal.keeping import Entry, written
from engine.session import Session
from engine.session_hybrid import HybridSession
from engine.summaries import LayerSummary

SAMPLE = str(demo.test_samples()[0][0])
DATASET = str(demo.DATASET)
BEGUN = [
    Entry("config", {"settings": {"std_values": [[255]], "target_platform": "rk3588"}}),
    Entry("open", {"model": "digits.onnx"}),
    Entry("build", {"dataset": DATASET}),
    Entry("analyze", {"inputs": [SAMPLE]}),
]
Run = Callable[..., str]


@pytest.fixture
def run(run: Run) -> Run:
    """Runs a command in a folder with the demo's model."""
    shutil.copy(demo.MODEL, "digits.onnx")
    return run


@pytest.fixture
def replay(run: Run) -> Callable[..., Any]:
    """Writes entries as a journal, replays them and gives the document; `words` are further options."""

    def replay(*entries: Entry, words: tuple[str, ...] = (), code: int = 0) -> Any:
        journal.write("j.jsonl", entries)
        return json.loads(run("replay", "j.jsonl", "--json", *words, code=code))

    return replay


def wish(**wishes: str) -> Entry:
    return Entry("set", {"wishes": wishes})


def cosines(document: Any) -> list[float]:
    return [step["quality"]["cosine"] for step in document["steps"] if step["quality"]]


# replay


def test_each_step_tells_the_cosine_that_follows_from_it(replay: Callable[..., Any]) -> None:
    cut = Entry("range", {"ranges": {"stem": [-0.01, 0.05]}})
    document = replay(*BEGUN, wish(joined="float16"), cut, Entry("undo"), Entry("redo"), Entry("undo"))
    assert [step["line"] for step in document["steps"]] == list(range(2, 11))
    built, better, worse, back, again, last = cosines(document)
    assert worse < min(built, better)
    assert (back, again, last) == (better, worse, better)
    assert document["final"]["edits"] == {"wishes": {"joined": "float16"}, "ranges": {}, "biases": ""}
    assert document["final"]["quality"] == document["steps"][-1]["quality"]
    assert document["final"]["extra"] > 0


def test_the_numbers_are_those_of_a_session(replay: Callable[..., Any]) -> None:
    wishes, ranges = {"stem": "float16", "stem_norm": "float16"}, {"features": [-0.5, 3.5]}
    edits = Entry("cfg", {"wishes": wishes, "ranges": ranges})
    final = replay(*BEGUN, wish(mix="int16"), edits)["final"]
    session = HybridSession()
    session.config = type(session.config).from_mapping(BEGUN[0]["settings"])
    session.load("digits.onnx")
    session.build(dataset=DATASET)
    session.live_start([SAMPLE])
    state = session.apply(wishes, ranges, whole=False)
    assert state.quality is not None
    assert final["quality"]["noise"] == state.quality.noise
    assert final["extra"] == state.extra


def test_text_has_a_line_a_step_and_ends_with_the_cosine(run: Run) -> None:
    journal.write(
        "j.jsonl", [*BEGUN, wish(joined="float16", stem="", mix="float16"), Entry("export", {"path": "m.rknn"})]
    )
    lines = run("replay", "j.jsonl").splitlines()
    assert [line.split()[:2] for line in lines[:6]] == [
        ["2", "config"],
        ["3", "open"],
        ["4", "build"],
        ["5", "analyze"],
        ["6", "set"],
        ["7", "export"],
    ]
    assert "float16: joined, mix; default: stem: cosine " in lines[4]
    assert lines[6].startswith("final: output cosine ") and "2 lines of custom_quantize_layers" in lines[6]


def test_without_an_analysis_the_dataset_s_first_sample_tells_the_cosine(replay: Callable[..., Any]) -> None:
    document = replay(*BEGUN[:3], wish(joined="float16"))
    assert cosines(document) == []
    assert 0 < document["final"]["quality"]["cosine"] < 1
    assert replay(*BEGUN[:2])["final"] == {"quality": None, "extra": None, "edits": None}


def test_what_is_saved_builds_to_the_same(replay: Callable[..., Any], run: Run) -> None:
    tune, take = Entry("tune", {"dataset": DATASET}), Entry("take", {"run": 1, "candidate": 1})
    files = Entry("save", {"cfg": "out.quantization.cfg"}), Entry("export", {"path": "out.rknn"})
    document = replay(*BEGUN, wish(stem="int16"), tune, take, *files)
    report = document["steps"][5]["report"]
    wishes = document["final"]["edits"]["wishes"]
    assert wishes == {"stem": "int16", **report["candidates"][1]["wishes"]}
    assert document["final"]["edits"]["biases"] == "1.1"
    assert document["steps"][7]["files"] == ["out.model", "out.data", "out.quantization.cfg"]
    run("build", "out.model", "--cfg", "out.quantization.cfg", "-o", "again.rknn")
    reports = []
    for name in ("out.rknn", "again.rknn"):
        session = Session()
        session.load(name)
        reports.append(session.analyze([SAMPLE]).layers)
    assert reports[0] == reports[1]


def test_the_shortest_script_comes_to_the_same(replay: Callable[..., Any]) -> None:
    tune, save = Entry("tune", {"dataset": DATASET}), Entry("save", {"cfg": "out.cfg"})
    tried = [wish(mix="float16"), tune, Entry("take", {"run": 1, "candidate": 0}), Entry("undo"), Entry("undo")]
    kept = [
        wish(stem="int16"),
        tune,
        Entry("take", {"run": 2, "candidate": 0}),
        wish(stem="", features="float16"),
        save,
    ]
    done = [*BEGUN, *tried, *kept]
    long = replay(*done)
    text = Path("out.cfg").read_text()
    Path("out.cfg").unlink()
    short = journal.compact(done)
    assert [entry.verb for entry in short[4:]] == ["set", "tune", "take", "set", "save"]
    found = replay(*short)
    assert found["final"] == long["final"]
    assert Path("out.cfg").read_text() == text


def test_a_candidate_is_known_by_its_layers(replay: Callable[..., Any]) -> None:
    tune = Entry("tune", {"dataset": DATASET, "run": 7})
    found = replay(*BEGUN, tune)["steps"][-1]["report"]["candidates"]
    take = Entry("take", {"run": 7, "candidate": 0, "wishes": found[1]["wishes"]})
    edits = replay(*BEGUN, tune, take)["final"]["edits"]
    assert (edits["wishes"], edits["biases"]) == (found[1]["wishes"], "7.1")
    take = Entry("take", {"run": 7, "candidate": 0, "wishes": {"stem": "int16"}})
    edits = replay(*BEGUN, tune, take)["final"]["edits"]
    assert (edits["wishes"], edits["biases"]) == ({"stem": "int16"}, "")


def test_a_search_that_was_not_made_or_has_no_such_candidate_is_told(replay: Callable[..., Any]) -> None:
    take = Entry("take", {"run": 1, "candidate": 40})
    assert "no search 1" in replay(*BEGUN, take, code=1)["error"]["what"]
    error = replay(*BEGUN, Entry("tune", {"dataset": DATASET}), take, code=1)["error"]
    assert "candidates only" in error["what"] and error["line"] == 7


def test_a_step_that_fails_ends_it_with_its_line(replay: Callable[..., Any]) -> None:
    document = replay(*BEGUN, wish(joined="float16"), wish(jioned="float16"), wish(mix="float16"), code=1)
    assert [step["line"] for step in document["steps"]] == [2, 3, 4, 5, 6]
    assert document["final"] is None
    assert document["error"]["line"] == 7
    assert document["error"]["where"].startswith("j.jsonl line 7: tensor 'jioned'")
    assert "did you mean 'joined'" in document["error"]["hint"]


def test_a_failure_is_told_after_the_steps_that_went_well(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    journal.write("j.jsonl", [*BEGUN, wish(jioned="float16")])
    assert cli.main(["replay", "j.jsonl", "-q"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 4
    assert err.startswith("error: j.jsonl line 6: tensor 'jioned'")


def test_edits_that_were_refused_and_taken_back_do_no_harm(replay: Callable[..., Any]) -> None:
    document = replay(*BEGUN, wish(joined="float16"), wish(jioned="float16"), Entry("undo"))
    assert "refused" in document["steps"][5]
    assert document["final"]["edits"]["wishes"] == {"joined": "float16"}
    assert cosines(document)[-1] == cosines(document)[1]


def test_a_new_build_begins_with_its_own_edits(replay: Callable[..., Any]) -> None:
    document = replay(*BEGUN, wish(joined="float16"), BEGUN[2], Entry("undo"), wish(stem="int16"))
    assert document["final"]["edits"]["wishes"] == {"stem": "int16"}


def test_a_package_and_hybrid_files_bring_their_edits_along(replay: Callable[..., Any]) -> None:
    save, export = Entry("save", {"cfg": "o.quantization.cfg"}), Entry("export", {"path": "o.rknn"})
    edits = [wish(joined="float16"), Entry("range", {"ranges": {"stem": [-4, 4]}})]
    first = replay(*BEGUN, *edits, save, export)["final"]
    analyze = Entry("analyze", {"inputs": [SAMPLE]})
    second = replay(Entry("open", {"model": "o.model", "cfg": "o.quantization.cfg"}), analyze, save)["final"]
    assert second["edits"] == first["edits"]
    assert second["quality"] == first["quality"]
    opened = [Entry("open", {"model": "o.model"}), analyze]
    assert replay(*opened, Entry("range", {"ranges": {"stem": None}}))["final"]["edits"]["ranges"] == {}
    third = replay(Entry("open", {"model": "o.rknn"}), analyze)["final"]
    assert third["edits"]["wishes"] == first["edits"]["wishes"]
    assert third["quality"] == first["quality"]


def test_a_person_s_comments_in_the_saved_cfg_stay(replay: Callable[..., Any]) -> None:
    save = Entry("save", {"cfg": "o.cfg"})
    replay(*BEGUN, wish(joined="float16"), save)
    text = Path("o.cfg").read_text().replace("joined: float16", "joined: float16  # the worst one")
    Path("o.cfg").write_text(text)
    replay(*BEGUN, wish(joined="float16", stem="int16"), save)
    assert Path("o.cfg").read_text() == text.replace("the worst one\n", "the worst one\n    stem: int16\n")


def test_nothing_is_written_outside_of_the_folder(run: Run, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.rknn"
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path.parent, target_is_directory=True)
    (tmp_path / "p.model").symlink_to(outside)
    for entry in (
        Entry("export", {"path": str(outside)}),
        Entry("export", {"path": f"../{outside.name}"}),
        Entry("export", {"path": f"link/{outside.name}"}),
        Entry("save", {"cfg": "p.quantization.cfg"}),
    ):
        # As it is written there: a journal of the app's own would name it in full.
        Path("j.jsonl").write_text("\n".join([HEADER, *(written(one).strip() for one in (*BEGUN, entry)), ""]))
        # Refused before the first step is done, although it comes last.
        error = json.loads(run("replay", "j.jsonl", "--json", code=1))["error"]
        assert error["where"].startswith("j.jsonl line 6: ")
        assert "lies outside of" in error["what"]
    assert not outside.exists()


def test_another_folder_takes_the_results(replay: Callable[..., Any], tmp_path: Path) -> None:
    save, export = Entry("save", {"cfg": "o.quantization.cfg"}), Entry("export", {"path": "o.rknn"})
    (tmp_path / "again").mkdir()
    # What was written there is read from there.
    opened = Entry("open", {"model": "o.model"})
    document = replay(*BEGUN, wish(joined="float16"), save, opened, export, words=("--folder", "again"))
    assert document["final"]["edits"]["wishes"] == {"joined": "float16"}
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "o.data",
        "o.model",
        "o.quantization.cfg",
        "o.rknn",
    ]
    assert not (tmp_path / "o.rknn").exists()


@pytest.mark.parametrize("path", ["j.jsonl", "digits.onnx", "sample.png", "folder"])
def test_what_is_read_is_not_replaced(replay: Callable[..., Any], path: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    shutil.copy(SAMPLE, "sample.png")
    analyze = Entry("analyze", {"inputs": ["sample.png"]})
    before = Path(path).read_bytes() if Path(path).is_file() else b""
    error = replay(*BEGUN[:3], analyze, Entry("export", {"path": path}), code=1)["error"]
    assert "line 6" in error["where"]
    if before and path != "j.jsonl":
        assert Path(path).read_bytes() == before
    assert journal.read("j.jsonl")


def test_a_missing_file_is_told_before_the_work(replay: Callable[..., Any]) -> None:
    error = replay(*BEGUN, Entry("tune", {"dataset": "no.txt"}), code=1)["error"]
    assert (error["what"], error["where"]) == ("does not exist", "j.jsonl line 6: no.txt")


def test_a_dry_run_shows_the_steps_and_does_nothing(run: Run, replay: Callable[..., Any], tmp_path: Path) -> None:
    entries = [*BEGUN, wish(a="int8", b="int8", c="int8", d="int8"), Entry("export", {"path": "o.rknn"})]
    document = replay(*entries, words=("--dry-run",))
    assert [(step["line"], step["verb"]) for step in document["steps"]][-1] == (7, "export")
    assert "    6  set int8: a, b, c and 1 more" in run("replay", "j.jsonl", "--dry-run").splitlines()
    assert not (tmp_path / "o.rknn").exists()


def test_a_part_of_the_steps_can_be_asked_for(replay: Callable[..., Any]) -> None:
    entries = [*BEGUN, wish(joined="float16"), wish(jioned="float16")]
    document = replay(*entries, words=("--until", "6"))
    assert [step["line"] for step in document["steps"]] == [2, 3, 4, 5, 6]
    assert document["final"]["edits"]["wishes"] == {"joined": "float16"}


def test_a_journal_that_cannot_be_read_is_told(run: Run) -> None:
    assert "no.jsonl: does not exist" in run("replay", "no.jsonl", code=1)
    assert "digits.onnx line 1: is no journal" in run("replay", "digits.onnx", code=1)
    Path("j.jsonl").write_text('{"journal": "rknn-tui", "version": 1}\n{"verb": "set"}\n')
    assert "j.jsonl line 2: set: 'wishes' is missing" in run("replay", "j.jsonl", code=1)


# set


@pytest.fixture
def hybrid(run: Run) -> Run:
    """The files of hybrid quantization in the folder."""
    run("hybrid", "digits.onnx", "--dataset", DATASET, "--std", "255")
    return run


CFG = Path("digits.quantization.cfg")


def precisions(model: str = "digits.rknn") -> dict[str, str]:
    session = Session()
    return {layer.name: layer.precision for layer in session.load(model).layers}


def test_the_layers_that_match_get_the_precision(hybrid: Run) -> None:
    CFG.write_text("# mine\n" + CFG.read_text())
    text = hybrid("set", "digits.model", "op:conv", "!name:stem", "int16")
    assert "features" in text and "wrote digits.quantization.cfg" in text
    assert CFG.read_text().startswith("# mine\n")
    hybrid("build", "digits.model", "--cfg", str(CFG))
    found = precisions()
    session = Session()
    for layer in session.load("digits.rknn").layers:
        assert (found[layer.name] == "int16") == ("Conv" in layer.op and layer.name != "stem")


def test_lines_are_taken_away_again_and_the_text_is_as_before(hybrid: Run) -> None:
    before = CFG.read_text()
    hybrid("set", "digits.model", "features", "float16")
    assert CFG.read_text() != before
    document = json.loads(hybrid("set", "digits.model", "type:float16", "name:features", "default", "--json"))
    assert [layer["name"] for layer in document["layers"]] == ["features"]
    assert (document["layers"][0]["before"], document["layers"][0]["after"]) == ("float16", "int8")
    assert set(document["lines"].values()) == {""}
    assert CFG.read_text() == before


def test_a_range_is_set_and_may_be_set_again(hybrid: Run) -> None:
    document = json.loads(hybrid("set", "digits.model", "stem", "--range", "-1.5,4", "--json"))
    assert document["ranges"]["stem"]["after"] == [-1.5, 4.0]
    assert document["layers"] == []
    hybrid("set", "digits.model", "stem", "float16")
    document = json.loads(hybrid("set", "digits.model", "stem", "--range=-2,4", "--json"))
    assert document["ranges"]["stem"]["before"] == [-1.5, 4.0]
    hybrid("build", "digits.model", "--cfg", str(CFG))
    session = HybridSession()
    session.load("digits.rknn")
    assert (session.table.rows["stem"].min, session.table.rows["stem"].max) == (-2.0, 4.0)


def test_the_models_inputs_are_among_the_layers(hybrid: Run) -> None:
    document = json.loads(hybrid("set", "digits.model", "op:input", "float16", "--json", "--dry-run"))
    assert document["matches"] == ["image"]
    assert document["lines"] == {"image": "float16"}


def test_a_dry_run_shows_what_would_change(hybrid: Run) -> None:
    before = CFG.read_text()
    text = hybrid("set", "digits.model", "op:conv", "int16", "--dry-run")
    assert "estimated time +" in text and "wrote" not in text
    assert CFG.read_text() == before


def test_what_is_so_already_is_not_written(hybrid: Run) -> None:
    hybrid("set", "digits.model", "features", "float16")
    CFG.chmod(0o444)
    before = CFG.stat().st_mtime_ns
    assert "1 layer match, nothing changes" in hybrid("set", "digits.model", "features", "float16")
    assert CFG.stat().st_mtime_ns == before


def test_a_package_s_cfg_is_changed_or_begun(hybrid: Run) -> None:
    hybrid("build", "digits.model", "--cfg", str(CFG))
    text = hybrid("set", "digits.rknn", "--cfg", "new.quantization.cfg", "features", "float16")
    assert "wrote new.model" in text
    hybrid("set", "digits.rknn", "--cfg", "new.quantization.cfg", "mix", "int16")
    hybrid("build", "new.model", "--cfg", "new.quantization.cfg")
    found = precisions("new.rknn")
    assert (found["features"], found["mix"]) == ("float16", "int16")
    Path("new.quantization.cfg").unlink()
    assert "new.model: would be replaced" in hybrid(
        "set", "digits.rknn", "--cfg", "new.quantization.cfg", "mix", "int16", code=1
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["features", "int4"], 2, "'int4' is no precision"),
        ([], 2, "what is to be set?"),
        (["int8"], 2, "no word says which layers"),
        (["cos<.9", "int8"], 2, "asks for what only an analysis tells"),
        (["op:", "int8"], 2, "'op:' looks for nothing"),
        (["featuers", "int8"], 1, "no layer matches 'featuers'"),
        (["features", "--range", "4,1"], 2, "expected a smallest and a largest value"),
        (["features", "--range", "1,1e999"], 2, "expected a smallest and a largest value"),
        (["features", "int8", "--data", "no.data"], 1, "no.data: "),
        (["features", "int8", "--cfg", "digits.model"], 2, "would replace"),
        (["features", "int8", "--std", "255"], 2, "unknown option --std"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_written(hybrid: Run, words: list[str], code: int, said: str) -> None:
    before = CFG.read_text()
    assert said in hybrid("set", "digits.model", *words, code=code)
    assert CFG.read_text() == before


def test_models_that_cannot_be_set_are_told(hybrid: Run) -> None:
    assert "is not built yet" in hybrid("set", "digits.onnx", "--cfg", "c.cfg", "stem", "int8", code=1)
    assert "lies beside no cfg" in hybrid("set", "digits.onnx", "stem", "int8", code=2)
    CFG.write_text(CFG.read_text().replace("custom_quantize_layers: {}", "custom_quantize_layers: {stme: int8}"))
    assert "did you mean 'stem'" in hybrid("set", "digits.model", "stem", "int8", code=1)


def test_a_precision_that_the_target_lacks_is_refused(run: Run) -> None:
    run("hybrid", "digits.onnx", "--dataset", DATASET, "--std", "255", "--target", "rv1106")
    before = CFG.read_text()
    assert "rv1106 cannot run a layer in 'float16'" in run("set", "digits.model", "stem", "float16", code=1)
    assert CFG.read_text() == before


# The filter language


def layer(name: str, op: str = "Conv", precision: str = "int8") -> LayerSummary:
    return LayerSummary(0, name, op, (), (1,), "float32", precision)


LAYERS = [
    layer("/model.2/m.1/cv1/conv/Conv_output_0", "ConvSiLU"),
    layer("/model.2/m.10/cv1/conv/Conv_output_0", "ConvSiLU", "int16"),
    layer("/model.22/dfl/Softmax_output_0", "Softmax", "float16"),
    layer("output0", "Concat", "int8+float16"),
]


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["op:conv"], [0, 1]),
        (["conv"], [0, 1]),
        (["op:conv|softmax"], [0, 1, 2]),
        (["CONCAT"], [3]),
        (["name:Softmax", "type:float"], [2]),
        (["type:float16"], [2, 3]),
        (["!dt:int"], [2]),
        (["block:m.1"], [0]),
        (["block:m."], [0, 1]),
        (["block:model.2"], [0, 1]),
        (["block:model.22|m.10"], [1, 2]),
        (["block:output0"], []),
        (["op:conv !m.10"], [0]),
    ],
)
def test_words_choose_layers_as_on_the_app_s_filter_line(words: list[str], places: list[int]) -> None:
    test = layer_filter.parse(words)
    assert [place for place, one in enumerate(LAYERS) if test(one)] == places


@given(st.lists(st.text("opname:tydblck!|.m1< 你", max_size=8), max_size=3))
def test_any_words_choose_layers_or_are_refused(words: list[str]) -> None:
    try:
        test = layer_filter.parse(words)
    except InputError as error:
        assert error.hint
    else:
        assert all(isinstance(test(one), bool) for one in LAYERS)
