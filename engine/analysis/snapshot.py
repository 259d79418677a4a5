"""The folder that an accuracy analysis leaves: every tensor of both runs as files, a name map, and the report."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engine.analysis.decimal_text import write_decimals
from engine.errors import FileError
from engine.files.holding import held, remove_abandoned
from engine.summaries import AccuracyReport, ErrorPair

Array = np.ndarray[Any, Any]

_WORK = ".snapshot."
_MINE = ("golden", "simulator", "error_analysis.txt", "map_name_to_file.txt")
_BOARD = "runtime"


class Snapshot:
    """Collects files in a hidden folder beside `directory` and puts them in place with `finish`.

    Files of an earlier snapshot in `directory` are replaced; others there are left alone. `text` also writes every
    value as a line of text, which is large and slow for big models. Use as a context manager: without `finish` nothing
    is kept. Raises FileError when the folder cannot be written.
    """

    def __init__(self, directory: str | Path, *, text: bool = True) -> None:
        self.directory = Path(directory)
        self._text = text
        self._files: dict[str, str] = {}
        self._taken: set[str] = set()
        self._writers = ThreadPoolExecutor(3)  # one for each run
        self._hold = contextlib.ExitStack()
        try:
            if self.directory.exists() and not self.directory.is_dir():
                raise FileError("is a file, not a folder", where=str(self.directory), hint="choose another output_dir")
            self._made = not self.directory.exists()
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.directory, _WORK)
            self._work = Path(tempfile.mkdtemp(prefix=_WORK, dir=self.directory))
            self._hold.enter_context(held(self._work))
            for kind in ("golden", "simulator"):
                (self._work / kind / "npy").mkdir(parents=True)
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *unused: object) -> None:
        self._writers.shutdown()
        self._hold.close()
        shutil.rmtree(self._work, ignore_errors=True)
        if self._made:
            with contextlib.suppress(OSError):  # it holds the finished snapshot
                self.directory.rmdir()

    def add(self, name: str, golden: Array, simulated: Array, board: Array | None = None) -> None:
        """Write a tensor of both runs, and of a board's where it gave that one; four-dimensional ones are NCHW with
        batch, as in the model."""
        file = self._file_name(name)
        self._files[name] = file
        runs = [("golden", golden), ("simulator", simulated)]
        try:
            if board is not None:
                self._make_room_for_board()
                runs.append((_BOARD, board))
            jobs = [self._writers.submit(self._write, self._work / kind, file, array) for kind, array in runs]
            for job in jobs:
                job.result()
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def _make_room_for_board(self) -> None:
        target, folder = self.directory / _BOARD, self._work / _BOARD / "npy"
        if folder.exists():
            return
        if target.exists() and not _is_run(target):
            raise FileError(
                "is not of an earlier analysis, and would be replaced",
                where=str(target),
                hint="choose another output_dir",
            )
        folder.mkdir(parents=True)

    def _write(self, folder: Path, file: str, array: Array) -> None:
        np.save(folder / "npy" / f"{file}.npy", np.asarray(array, np.float32), allow_pickle=False)
        if self._text:
            write_decimals(folder / f"{file}.txt", array)

    def finish(self, report: AccuracyReport) -> None:
        """Write the report and the name map, and put everything in place."""
        try:
            width = max(map(len, self._files), default=0)
            lines = [f"{name:<{width}}  {file}.npy" for name, file in self._files.items()]
            (self._work / "map_name_to_file.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            (self._work / "error_analysis.txt").write_text(format_report(report), encoding="utf-8")
            old = self._work / "old"
            old.mkdir()
            # An earlier one of a board goes too, where this is not of one; a folder that only has its name stays.
            board = (_BOARD,) if _is_run(self.directory / _BOARD) or (self._work / _BOARD).exists() else ()
            for name in (*_MINE, *board):
                target = self.directory / name
                # A folder cannot be replaced by another in one step, but it can be kept until the new one is there.
                if target.is_dir() and not target.is_symlink():
                    target.replace(old / name)
                if (self._work / name).exists():
                    (self._work / name).replace(target)
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def _file_name(self, tensor: str) -> str:
        """A portable, unique file name; the toolkit turns `.` and `/` into `_`, and so do we with the rest."""
        # File systems count bytes, 255 of them; what is left is for a number and the ending.
        base = re.sub(r"[^\w-]", "_", tensor).encode()[:180].decode(errors="ignore") or "_"
        name, count = base, 1
        while name.lower() in self._taken:
            name, count = f"{base}_{count}", count + 1
        self._taken.add(name.lower())
        return name


def _is_run(folder: Path) -> bool:
    """Whether a folder holds the tensors of a run, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    tensors = folder / "npy"
    return all(entry == tensors or entry.suffix == ".txt" for entry in folder.iterdir()) and (
        not tensors.is_dir() or all(entry.suffix == ".npy" for entry in tensors.iterdir())
    )


def _unwritable(directory: Path, error: OSError) -> FileError:
    return FileError(
        f"cannot be written: {error.strerror or error}", where=str(directory), hint="choose another output_dir"
    )


def format_report(report: AccuracyReport) -> str:
    """The report as text in the toolkit's columns: entire and single, cosine and euclidean, five decimals; and those
    of a board, where one was asked."""
    names = [f"[{line.op}] {line.name}" for line in report.layers]
    width = max([len("layer_name"), *map(len, names)]) + 2
    groups = [("simulator_error", "entire", "single")]
    rows = [[_pair(line.entire), _pair(line.single)] for line in report.layers]
    if report.board is not None:
        groups.append(("runtime_error", "simulator", "golden"))
        for row, line in zip(rows, report.layers, strict=True):
            row += [_pair(line.board_simulator), _pair(line.board)]
    column = max([18, *(len(text) for row in rows for text in row)]) + 2
    titles = (
        [title for group in groups for title in (group[0], "")],
        [title for group in groups for title in group[1:]],
        ["cos | euc"] * (2 * len(groups)),
    )
    text = [
        "# simulator_error: the quantized model on the simulator against the float model (golden)",
        "#   entire: the whole quantized model up to this layer; single: this layer alone, fed with golden inputs",
        *_board_lines(report),
        "#   cos: cosine similarity (1 is perfect); euc: euclidean distance. Empty: computed inside the next layer",
        "",
        *(_columns(name, cells, width, column) for name, cells in zip(("layer_name", "", ""), titles, strict=True)),
        "-" * (width + 2 * len(groups) * column),
    ]
    text += [_columns(name, row, width, column) for name, row in zip(names, rows, strict=True)]
    joins = [line for line in report.layers if line.parts]
    if joins:
        text += ["", "# parts of joins, each judged alone"]
        for line in joins:
            text.append(f"# [{line.op}] {line.name}")
            for part in line.parts:
                place = f"#   {part.tensor} [{part.start}:{part.stop}]"
                text.append(f"{place}  {_pair(part.entire)}  {_pair(part.single)}  {part.flag}".rstrip())
    text += [f"# warning: {warning}" for warning in report.warnings]
    return "\n".join(text) + "\n"


def _board_lines(report: AccuracyReport) -> list[str]:
    """Where the model ran besides, and what the columns of that are."""
    if report.board is None:
        return []
    place = {"npu": "on the NPU", "cpu": "on the board's processor, not on its NPU"}[report.board.place]
    return [
        f"# runtime_error: the whole quantized model as it ran {place} ({report.board.device}, {report.board.chip})",
        "#   simulator: against the whole quantized model on the simulator; golden: against the float model",
        "#   Empty: the board gave no such tensor",
    ]


def _columns(name: str, cells: list[str], width: int, column: int) -> str:
    return f"{name:<{width}}{''.join(f'{cell:<{column}}' for cell in cells)}".rstrip()


def _pair(pair: ErrorPair | None) -> str:
    return "" if pair is None else f"{pair.cosine:.5f} | {pair.euclidean:.5f}"
