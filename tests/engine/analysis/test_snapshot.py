"""The folder of an analysis: numbers, names and columns that other programs read, replaced as a whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.snapshot import Snapshot, format_report
from engine.errors import FileError
from engine.session import Session
from engine.summaries import AccuracyReport, ErrorPair, LayerError, PartError
from tests.small_networks import Array, built, infer, network, random, renamed

EMPTY = AccuracyReport((), {}, 1, 0.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    proto = network(
        {"x": (1, 3, 4, 4)},
        "c = Conv (x, w)\nr = Relu (c)\np = LeakyRelu (r)\ny = Concat <axis = 1> (r, p)",
        {"w": random(4, 3, 1, 1)},
    )
    proto = renamed(proto, {"r": "block.1/relu", "p": "block_1/relu"})
    return built(tmp_path_factory.mktemp("built"), proto, [[random(1, 3, 4, 4)]])


SAMPLE = random(1, 3, 4, 4, seed=5)


def analysed(session: Session, folder: Path, *, text: bool = True) -> AccuracyReport:
    return session.analyze([SAMPLE.transpose(0, 2, 3, 1)], output_dir=folder, text=text)


def file_names(folder: Path) -> dict[str, str]:
    lines = (folder / "map_name_to_file.txt").read_text(encoding="utf-8").splitlines()
    pairs = [re.split(" {2,}", line) for line in lines]
    return {pair[0]: pair[1] for pair in pairs}


class TestFiles:
    def test_every_tensor_of_both_runs_is_there_with_its_numbers(self, session: Session, tmp_path: Path) -> None:
        analysed(session, tmp_path)
        names = file_names(tmp_path)
        assert list(names) == ["x", "c", "block.1/relu", "block_1/relu", "y"]
        assert list(names.values()) == ["x.npy", "c.npy", "block_1_relu.npy", "block_1_relu_1.npy", "y.npy"]
        for kind in ("golden", "simulator"):
            assert sorted(p.name for p in (tmp_path / kind / "npy").iterdir()) == sorted(names.values())
            for file in names.values():
                array = np.load(tmp_path / kind / "npy" / file, allow_pickle=False)
                assert array.dtype == np.float32 and array.ndim == 4
                text = (tmp_path / kind / file.replace(".npy", ".txt")).read_text().splitlines()
                assert text == [f"{v:f}" for v in array.reshape(-1).tolist()]

        def load(kind: str, name: str) -> Array:
            return np.load(tmp_path / kind / "npy" / names[name])

        golden = np.einsum("oi,bihw->bohw", random(4, 3, 1, 1)[:, :, 0, 0], SAMPLE)
        assert np.array_equal(load("golden", "x"), SAMPLE)
        assert np.allclose(load("golden", "c"), golden, atol=1e-6)
        assert np.allclose(load("golden", "block.1/relu"), np.maximum(golden, 0), atol=1e-6)
        # Inside a layer nothing is rounded; what leaves it is.
        assert load("simulator", "c").min() < 0
        step = session.table.rows["block.1/relu"].scale
        assert step is not None
        steps = load("simulator", "block.1/relu") / step
        assert np.allclose(steps, np.rint(steps), atol=1e-4)
        assert np.array_equal(load("simulator", "y"), infer(session, SAMPLE)[0])

    def test_the_columns_of_the_report_parse_back_to_its_numbers(self, session: Session, tmp_path: Path) -> None:
        report = analysed(session, tmp_path)
        text = (tmp_path / "error_analysis.txt").read_text(encoding="utf-8").splitlines()
        assert all(line.startswith("#") for line in text[:3]) and text[3] == ""
        assert text[4].split() == ["layer_name", "simulator_error"] and text[5].split() == ["entire", "single"]
        assert text[6].split() == ["cos", "|", "euc", "cos", "|", "euc"] and set(text[7]) == {"-"}
        starts = [text[6].index("cos"), text[6].rindex("cos")]
        assert [text[5].index("entire"), text[5].index("single")] == starts
        for line, printed in zip(report.layers, text[8:], strict=False):
            assert printed.startswith(f"[{line.op}] {line.name}")
            columns = [printed[starts[0] : starts[1]].strip(), printed[starts[1] :].strip()]
            expected = [f"{p.cosine:.5f} | {p.euclidean:.5f}" if p else "" for p in (line.entire, line.single)]
            assert columns == expected
        assert report.directory == str(tmp_path)
        assert "# [Concat] y" in text

    def test_without_text_only_arrays_are_written(self, session: Session, tmp_path: Path) -> None:
        analysed(session, tmp_path, text=False)
        assert not list((tmp_path / "golden").glob("*.txt"))
        assert len(list((tmp_path / "golden" / "npy").glob("*.npy"))) == 5

    def test_the_errors_are_those_of_the_written_arrays(self, session: Session, tmp_path: Path) -> None:
        report = analysed(session, tmp_path)
        names = file_names(tmp_path)
        for line in report.layers:
            if line.entire is not None:
                golden, simulated = (
                    np.load(tmp_path / kind / "npy" / names[line.name]).astype(np.float64)
                    for kind in ("golden", "simulator")
                )
                assert line.entire.euclidean == pytest.approx(float(np.linalg.norm(golden - simulated)), rel=1e-4)


class TestReplacing:
    def test_a_second_snapshot_replaces_the_first_and_leaves_other_files(
        self, session: Session, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        analysed(session, tmp_path)
        with Snapshot(tmp_path) as snapshot:
            snapshot.add("other", np.ones(3, np.float32), np.zeros(3, np.float32))
            snapshot.finish(EMPTY)
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "error_analysis.txt", "golden", "map_name_to_file.txt", "notes.txt", "simulator",
        ]  # fmt: skip
        assert [p.name for p in (tmp_path / "golden" / "npy").iterdir()] == ["other.npy"]
        assert file_names(tmp_path) == {"other": "other.npy"}
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_folder_that_is_only_called_as_that_of_a_board_is_left_alone(
        self, session: Session, tmp_path: Path
    ) -> None:
        kept = tmp_path / "runtime/npy/notes.md"
        kept.parent.mkdir(parents=True)
        kept.write_text("mine")
        analysed(session, tmp_path, text=False)
        assert kept.read_text() == "mine"
        with Snapshot(tmp_path) as snapshot, pytest.raises(FileError, match="would be replaced"):
            snapshot.add("x", np.zeros(2), np.zeros(2), np.zeros(2))
        assert kept.read_text() == "mine"

    def test_an_earlier_board_goes_where_this_is_of_none(self, session: Session, tmp_path: Path) -> None:
        earlier = tmp_path / "runtime/npy/x.npy"
        earlier.parent.mkdir(parents=True)
        earlier.write_bytes(b"")
        analysed(session, tmp_path, text=False)
        assert not earlier.exists()

    def test_one_that_does_not_finish_leaves_the_first_as_it_was(self, session: Session, tmp_path: Path) -> None:
        analysed(session, tmp_path)
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(KeyboardInterrupt), Snapshot(tmp_path) as snapshot:
            snapshot.add("other", np.ones(3, np.float32), np.zeros(3, np.float32))
            raise KeyboardInterrupt
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]

    def test_a_file_in_the_way_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        for place in (tmp_path / "out", tmp_path / "out" / "deeper"):
            with pytest.raises(FileError, match="output_dir"):
                Snapshot(place)

    @pytest.mark.parametrize(
        "name", ["../../evil", "/etc/passwd", "..", "", "a\0b", "con:", "层" * 200, "x" * 400, "A\nb"]
    )
    def test_no_tensor_name_leads_out_of_the_folder_or_fails(self, name: str, tmp_path: Path) -> None:
        with Snapshot(tmp_path / "out") as snapshot:
            for tensor in (name, name + ".", name.upper() + "_"):
                snapshot.add(tensor, np.ones(2, np.float32), np.ones(2, np.float32))
            snapshot.finish(EMPTY)
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        assert len(list((tmp_path / "out" / "golden" / "npy").iterdir())) == 3
        assert len(list((tmp_path / "out" / "golden").glob("*.txt"))) == 3


class TestReportText:
    REPORT = AccuracyReport(
        (
            LayerError("a", "Conv", "", None, None),
            LayerError(
                "a.longer/name", "Concat", "int8", ErrorPair(0.999994, 12345.678901), ErrorPair(-1.0, 0.0),
                (PartError("left", 1, 0, 4, ErrorPair(0.5, 2.0), ErrorPair(0.25, 3.0), "zero"),),
            ),
        ),
        {}, 1, 0.0, warnings=("part 'left' comes out zero",),
    )  # fmt: skip

    def test_five_decimals_and_empty_columns_for_what_is_fused(self) -> None:
        lines = format_report(self.REPORT).splitlines()
        assert [re.split(" {2,}", line) for line in lines if line.startswith("[")] == [
            ["[Conv] a"],
            ["[Concat] a.longer/name", "0.99999 | 12345.67890", "-1.00000 | 0.00000"],
        ]
        assert "#   left [0:4]  0.50000 | 2.00000  0.25000 | 3.00000  zero" in lines
        assert lines[-1] == "# warning: part 'left' comes out zero"
