"""What the workbench says and asks, and how typed answers are read."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

from engine.cli_errors import in_option_words
from engine.errors import DatasetError, EngineError, InputError
from rknn_tui.bench.paths import is_file, typed_path

LONGEST_LINE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Notice:
    """A sentence for the message line. `level` is 'info', 'warning' or 'error'."""

    text: str
    level: str = "info"


@dataclasses.dataclass(frozen=True)
class Question:
    """Something to be answered. `topic` tells the answer's reader what it is about.

    `confirm`: answered by 'y', anything else is no. `choices`: answered by one of these characters, anything else takes
    the question back. Otherwise it is answered by a line of text that begins as `prefill`; `paths`: the line is
    completed like a path. `subject` is carried along to the answer.
    """

    topic: str
    text: str
    prefill: str = ""
    subject: str = ""
    confirm: bool = False
    paths: bool = True
    choices: str = ""

    @property
    def typed(self) -> bool:
        """Whether a line of text answers it."""
        return not (self.confirm or self.choices)


Reply = Notice | Question | None


def counted(number: int, noun: str) -> str:
    """`1 note`, `2 notes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def notice_of(error: EngineError, log: Path | None = None, model: str = "") -> Notice:
    """An error as a notice that says what, where and what to do, in the words of the command line that opens the app.

    `model` is the file that options for cutting are about.
    """
    error = in_option_words(error, model)
    # Keys of encrypted files are never typed here: what is typed goes through a pipe, and may end in a journal.
    error.hint = re.sub(r"^give key=, or (set .*)", r"leave, \1, then open it again", error.hint)
    text = str(error)
    if log is not None and type(error).__name__ == "InternalError":
        text += f" [log: {log}]"
    return Notice(text, "error")


def parse_sizes(text: str) -> list[list[int]]:
    """Input sizes as people type them: '1,3,640,640', '1x3x640x640', '[[1, 3, 640, 640]]', several apart by ';'.

    Raises InputError.
    """
    if "[" in text:
        groups = re.findall(r"\[([^\[\]]*)\]", text)
    else:
        joined = re.sub(r"\s*[,x×]\s*", ",", text.strip())
        groups = re.split(r"\s*;\s*" if "," not in joined else r"[;\s]+", joined)
    sizes: list[list[int]] = []
    for group in groups:
        if not group.strip():
            continue
        parts = [part for part in re.split(r"[,x×\s]+", group.strip()) if part]
        if not parts or not all(part.isdecimal() and 0 < int(part[:12]) < 1 << 31 for part in parts):
            raise InputError(f"{group.strip()!r} is not a size", hint="numbers above 0, such as 1,3,640,640")
        sizes.append([int(part) for part in parts])
    if not sizes:
        raise InputError("no size given", hint="such as 1,3,640,640; several inputs apart by ';'")
    return sizes


def first_sample(dataset: str, inputs: int) -> list[str]:
    """The files of a dataset's first sample, relative paths taken from its folder. Raises DatasetError."""
    path = Path(typed_path(dataset))
    try:
        with path.open(encoding="utf-8-sig") as file:
            for _ in range(1000):
                line = file.readline(LONGEST_LINE)
                if not line:
                    break
                if line.strip() and not line.lstrip().startswith("#"):
                    return [str(path.parent / name) for name in _files(line.strip(), path.parent, inputs)]
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=dataset) from error
    raise DatasetError("lists no samples", where=dataset, hint="write one image or npy path a line")


def split_paths(text: str) -> list[str]:
    """Paths as typed, apart by spaces, in quotes where they contain some; one that exists as a whole stays whole."""
    whole = typed_path(text.strip())
    try:
        if is_file(whole):
            return [whole]
        return [typed_path(part) for part in shlex.split(text)]
    except (OSError, ValueError) as error:
        raise InputError(f"{text!r} is not a list of paths: {error}") from error


def _files(line: str, folder: Path, inputs: int) -> list[str]:
    if inputs == 1 and is_file(folder / line):
        return [line]
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
