"""Completes typed paths and lists what a folder offers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from pathlib import Path

# Of the two files of a Caffe or Darknet model, the one whose ending says most.
MODEL_SUFFIXES = (
    ".onnx",
    ".rknn",
    ".model",
    ".tflite",
    ".pb",
    ".prototxt",
    ".weights",
    ".pt",
    ".pth",
    ".ptl",
)
DATASET_SUFFIXES = (".txt",)
CONFIG_SUFFIXES = (".yaml", ".yml")
CFG_SUFFIXES = (".quantization.cfg", ".cfg")
MOST_ENTRIES = 2000
"""Folders that offer more are cut: nobody scrolls through them."""
MOST_NAMES = 20_000
"""Names of a folder that are looked at: a network folder is slow to list, and may hold a whole dataset."""


def entries(text: str, suffixes: Collection[str] = ()) -> list[str]:
    """What `text` could go on to: folders (ending in '/') first, then files with one of `suffixes` (any when empty).

    The part of `text` up to the last '/' is kept as typed. Hidden names are offered once a dot is typed. A folder that
    cannot be read offers nothing.
    """
    folder, slash, start = text.rpartition("/")
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(Path(folder + slash or ".").expanduser()) as found:
            for entry in itertools.islice(found, MOST_NAMES):
                if len(folders) + len(files) >= MOST_ENTRIES:
                    break
                name = entry.name
                if not name.lower().startswith(start.lower()) or (name.startswith(".") and not start.startswith(".")):
                    continue
                if _is_folder(entry):
                    folders.append(f"{folder}{slash}{name}/")
                elif not suffixes or name.lower().endswith(tuple(suffixes)):
                    files.append(f"{folder}{slash}{name}")
    except (OSError, ValueError, RuntimeError):
        return []
    return sorted(folders) + sorted(files)


def complete(text: str, suffixes: Collection[str] = ()) -> str:
    """`text` as far as every continuation agrees, or as it is."""
    found = entries(text, suffixes)
    if not found:
        return text
    columns = zip(*(name.lower() for name in found), strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda letters: len(set(letters)) == 1, columns))
    return found[0][:common] if common >= len(text) else text


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
