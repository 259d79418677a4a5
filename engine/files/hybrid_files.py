"""The three files between the steps of hybrid quantization: the graph, what calibration made of it, the cfg to edit."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import FileError
from engine.files import members
from engine.files.stored import Stored, facts_of, members_of, stored_in
from engine.files.stored_graph import graph_to_bytes
from engine.files.writing import replacing
from engine.ort import LARGEST_MODEL
from engine.quantization.cfg_edit import with_wishes
from engine.quantization.hybrid import remarks
from engine.quantization.table import LARGEST_CFG, to_cfg
from engine.summaries import LARGEST_TEXT

_FORMAT, _VERSION = "rknn-tui hybrid", 1
_AGAIN = "run step 1 of hybrid quantization again"
_KIND = ".data file"
_QUANTIZATION = ".quantization"

log = logging.getLogger("engine")


def paths(folder: str | Path, stem: str) -> tuple[Path, Path, Path]:
    """Where `write` puts the .model, the .data and the .quantization.cfg of a model called `stem`."""
    parent = Path(folder)
    return parent / f"{stem}.model", parent / f"{stem}.data", parent / f"{stem}.quantization.cfg"


def write(
    folder: str | Path,
    stem: str,
    stored: Stored,
    *,
    comments: Mapping[str, str] | None = None,
    heading: str = "",
    source: str | Path | None = None,
) -> tuple[Path, Path, Path]:
    """Write the three files; those of an earlier run are replaced once all the new ones are complete.

    `stem` is the model's file name without its last suffix. The .model is plain ONNX. A cfg that was edited since it
    was written is kept beside the new one as `.bak`, which a warning tells. `comments` (tensor -> text) and `heading`
    go behind the lines of custom_quantize_layers. `source`, the file that the model was read from, is never replaced.

    Returns their paths. Raises FileError and ModelError.
    """
    _, data_path, cfg_path = found = paths(folder, stem)
    _spare(source, found)
    quantized = stored.quantized
    graph = graph_to_bytes(quantized.model)
    cfg = to_cfg(quantized.table, remarks(stored.recipe, stored.samples, stored.equalized, quantized))
    if comments or heading:
        cfg = with_wishes(cfg, quantized.table.wishes, comments=comments, heading=heading)
    text = cfg.encode()
    edited = _edited_cfg(data_path, cfg_path)
    backup = cfg_path.with_name(f"{cfg_path.name}.bak")
    _write(found, graph, text, stored, () if edited in (None, text) else ((backup, edited),))
    if edited not in (None, text):
        log.warning("%s was edited; it is kept as %s", cfg_path, backup.name)
    return found


def write_beside(
    cfg_path: str | Path,
    text: str,
    stored: Stored,
    *,
    known: str | None = None,
    source: str | Path | None = None,
) -> tuple[Path, Path, Path]:
    """Write `text` to `cfg_path`, and the .model and .data that it is for beside it; old files are replaced once all
    the new ones are complete.

    The wishes in `text` are those that count. `known` is the checksum of what is thought to be at `cfg_path`, None for
    nothing; with anything else there, but for the text itself, nothing is written. `source` is never replaced.

    Returns the paths of the .model, the .data and the cfg. Raises FileError and ModelError.
    """
    cfg_path = Path(cfg_path)
    stem = cfg_path.name.removesuffix(cfg_path.suffix).removesuffix(_QUANTIZATION) or cfg_path.name
    found = cfg_path.with_name(f"{stem}.model"), cfg_path.with_name(f"{stem}.data"), cfg_path
    if cfg_path in found[:2]:
        raise FileError("is no name for a cfg", where=str(cfg_path), hint=f"call it {stem}{_QUANTIZATION}.cfg")
    _spare(source, found)
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise FileError(f"cannot hold character {error.start} of the text", where=str(cfg_path)) from error
    graph = graph_to_bytes(stored.quantized.model)
    if _exists(cfg_path):
        there = members.checksum(_content(cfg_path, LARGEST_CFG))
        if there not in (known, members.checksum(content)):
            what = "exists already" if known is None else "changed on disk since it was read"
            raise FileError(what, where=str(cfg_path), hint="read it first, or choose another name")
    _write(found, graph, content, stored)
    return found


def read_text(path: str | Path) -> tuple[str, str]:
    """The text of a cfg that is no longer than LARGEST_TEXT, and its checksum. Raises FileError."""
    text = read_cfg(path, LARGEST_TEXT)
    return text, members.checksum(text.encode())


def read(model_path: str | Path, data_path: str | Path) -> Stored:
    """The model that the .model and the .data of one run hold together.

    Raises FileError, also where they are of two runs, or not ours.
    """
    with members.opened(data_path, _KIND, _FORMAT, _VERSION) as data:
        graph = _content(model_path, LARGEST_MODEL)
        if members.checksum(graph) != data.manifest["model"]:
            raise FileError(f"was not written together with {data_path}", where=str(model_path), hint=_AGAIN)
        return stored_in(data, graph)


def read_cfg(path: str | Path, largest: int = LARGEST_CFG) -> str:
    """The text of an edited cfg of so many bytes at most, with its line breaks as they are. Raises FileError."""
    try:
        return _content(path, largest).decode()
    except UnicodeDecodeError as error:
        raise FileError(f"is not UTF-8 text: byte {error.start}", where=str(path)) from error


def _exists(path: str | Path) -> bool:
    """Whether there is anything. Raises FileError for what can be no file, such as a name that is too long."""
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot be written: {reason}", where=str(path)) from error


def _spare(source: str | Path | None, found: Sequence[Path]) -> None:
    """Raise FileError if one of the files is `source`."""
    for path in found:
        if source is not None and _exists(path) and _exists(source) and path.samefile(source):
            raise FileError("is the model that was loaded, and would be replaced", where=str(path), hint="rename it")


def _write(
    found: tuple[Path, Path, Path],
    graph: bytes,
    cfg: bytes,
    stored: Stored,
    further: Sequence[tuple[Path, bytes]] = (),
) -> None:
    model_path, data_path, cfg_path = found
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": members.checksum(graph),
        "cfg": members.checksum(cfg),
        **facts_of(stored),
    }
    with contextlib.ExitStack() as stack:
        # Written out before the first takes its place: a full disk shows while the old files are all still there.
        for path, content in ((model_path, graph), (cfg_path, cfg), *further):
            file = stack.enter_context(replacing(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # It tells the graph's checksum, and takes its place first.
        members.write(stack.enter_context(replacing(data_path)), manifest, members_of(stored))


def _content(path: str | Path, largest: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from error
    if len(content) > largest:
        raise FileError("is too large", where=str(path))
    return content


def _edited_cfg(data_path: Path, cfg_path: Path) -> bytes | None:
    """The cfg in place, if it is not as the .data beside it says that it was written."""
    if not cfg_path.is_file():
        return None
    content = _content(cfg_path, LARGEST_CFG)
    try:
        with members.opened(data_path, _KIND, _FORMAT, _VERSION) as data:
            if data.manifest.get("cfg") == members.checksum(content):
                return None
    except FileError:
        pass
    return content
