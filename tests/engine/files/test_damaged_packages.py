"""Damaged and hostile packages end in one of our errors, in bounded time and memory, and nothing is unpacked."""

from __future__ import annotations

import io
import stat
import struct
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import EngineError
from tests.engine.files.damaged_packages import damaged, example, load, packed, summed, unpacked
from tests.engine.frontends.mutated_files import MOST_SECONDS, Worker

_FEW, _MANY, _PARTS = 150, 10_000, 3
_LOADING = "tests.engine.files.damaged_packages"


def test_the_example_loads(tmp_path: Path) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(example())
    load(path)
    path.write_bytes(packed(summed(unpacked(example()))))
    load(path)


def test_damage_does_no_harm(tmp_path: Path) -> None:
    outcomes = Counter(_outcome(damaged(number), tmp_path) for number in range(_FEW))
    assert outcomes["refused"] > outcomes["loaded"]


def test_a_package_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    data = example()
    for percent in range(100):
        assert _outcome(data[: len(data) * percent // 100], tmp_path) == "refused", percent
    assert _outcome(data[:-1], tmp_path) == "refused"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_ten_thousand_damaged_packages_do_no_harm(part: int, tmp_path: Path) -> None:
    path = tmp_path / "m.rknn"
    counts: Counter[str] = Counter()
    with Worker() as worker:
        for number in range(_FEW + part, _FEW + _MANY, _PARTS):
            path.write_bytes(damaged(number))
            outcome = worker.load_with(_LOADING, [path], {})
            counts[outcome.kind] += 1
            assert not outcome.faulty, f"number {number}: {outcome.kind}: {outcome.detail}"
    print(counts)
    assert set(counts) == {"loaded", "refused"}


def _zip(write: Callable[[zipfile.ZipFile], None], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in unpacked(example()).items():
            archive.writestr(name, data)
        write(archive)
    return file.getvalue()


def _bomb() -> bytes:
    """A manifest of many megabytes in a few kilobytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("manifest.json", "w") as member:
        for _ in range(6):
            member.write(bytes(4 << 20))
    return file.getvalue()


def _directory(change: Callable[[zipfile.ZipInfo], None], name: str = "graph.onnx") -> bytes:
    """The example with another directory at its end; what it describes stays."""
    file = io.BytesIO(packed(unpacked(example())))
    with zipfile.ZipFile(file, "a") as archive:
        change(archive.getinfo(name))
        archive._didModify = True  # type: ignore[attr-defined]
    return file.getvalue()


def _overlapping() -> bytes:
    """Many members, each of which is the whole of one large one."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("npu/0.rknn", bytes(1 << 20))
        first = archive.getinfo("npu/0.rknn")
        for number in range(1, 2000):
            copy = zipfile.ZipInfo(f"npu/{number}.rknn")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.file_size = copy.compress_size = first.file_size
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive.writestr("manifest.json", unpacked(example())["manifest.json"])
    return file.getvalue()


def _link() -> bytes:
    content = summed({**unpacked(example())})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if name == "table.cfg" else stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, data)
    return file.getvalue()


def _end(**changed: int) -> bytes:
    """The example with other numbers in the record at its end."""
    data = bytearray(example())
    names = ("disk", "start_disk", "here", "count", "size", "offset", "comment")
    record = dict(zip(names, struct.unpack("<HHHHIIH", data[-18:]), strict=True)) | changed
    data[-18:] = struct.pack("<HHHHIIH", *record.values())
    return bytes(data)


def _fill(archive: zipfile.ZipFile) -> None:
    for number in range(5_000):
        archive.writestr(str(number), b"")


def _put(name: str, value: int) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: setattr(info, name, value)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a manifest that unpacks to a thousand times its size": _bomb,
    "members that are compressed": lambda: _zip(lambda archive: None, zipfile.ZIP_DEFLATED),
    "a member of many gigabytes, as its size says": lambda: _directory(_put("file_size", 0xFFFFFFF0)),
    "a member of many gigabytes, as both sizes say": lambda: _directory(
        lambda info: (_put("file_size", 0x7FFFFFF0)(info), _put("compress_size", 0x7FFFFFF0)(info))[0]
    ),
    "a member that begins behind the end": lambda: _directory(_put("header_offset", 0x7FFFFFF0)),
    "a member that begins within another": lambda: _directory(_put("header_offset", 40)),
    "a member that is encrypted": lambda: _directory(_put("flag_bits", 1)),
    "many members over one another": _overlapping,
    "a great many members": lambda: _zip(_fill),
    "a package within a package": lambda: packed({"manifest.json": example(), "graph.onnx": example()}),
    "a member that is there twice": lambda: _zip(lambda archive: archive.writestr("graph.onnx", b"other")),
    "a manifest that is there twice": lambda: _zip(lambda archive: archive.writestr("manifest.json", b"{}")),
    "a link": _link,
    "a folder": lambda: _zip(lambda archive: archive.writestr("npu/", b"")),
    "a directory that is larger than the file": lambda: _end(size=0x7FFFFFF0),
    "a directory that begins behind the end": lambda: _end(offset=0x7FFFFFF0),
    "more members than there are": lambda: _end(count=60_000, here=60_000),
    "a comment that is not there": lambda: _end(comment=100),
    "something behind the end": lambda: example() + bytes(100),
    "something before the beginning": lambda: bytes(100) + example(),
    "numbers for a larger kind of zip": lambda: _end(size=0xFFFFFFFF, offset=0xFFFFFFFF, count=0xFFFF, here=0xFFFF),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    data = HOSTILE[kind]()
    started = time.process_time()
    assert _outcome(data, tmp_path) == "refused"
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "..\\evil", "C:\\evil", "C:evil", "a\0b", "npu/rk9.rknn", "é" * 999]
)
def test_members_of_other_names_are_refused(name: str, tmp_path: Path) -> None:
    for content in ({**unpacked(example()), name: b"x"}, summed({**unpacked(example()), name: b"x"})):
        assert _outcome(packed(content), tmp_path) == "refused"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_take_little_memory(kind: str, worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(HOSTILE[kind]())
    outcome = worker.load_with(_LOADING, [path], {})
    assert outcome.kind == "refused" and outcome.memory < 256 << 20, outcome


def _outcome(data: bytes, folder: Path) -> str:
    """What becomes of a file; only our own errors may come of it, and nothing else may be in its folder."""
    path = folder / "m.rknn"
    path.write_bytes(data)
    try:
        load(path)
    except EngineError as error:
        assert str(error)
        return "refused"
    finally:
        assert [one.name for one in folder.iterdir()] == ["m.rknn"]
    return "loaded"
