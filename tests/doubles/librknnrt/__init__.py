"""Builds the stand-in of the vendor's runtime from our own C, for any version of its interface."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE / "librknnrt.c"
VERSIONS = {
    (1, 0): "1.0.0 (a9f3c21d7@2021-12-24T10:00:00)",
    (1, 2): "1.2.6b0 (cbcc0a1eb@2022-04-13T09:41:25)",
    (1, 3): "1.3.0 (9b36d4d74@2022-05-04T20:17:01)",
    (1, 4): "1.4.0 (a10f100eb@2022-09-09T09:07:14)",
    (1, 5): "1.5.2 (c6b7b351a@2023-08-23T15:28:22)",
    (2, 0): "2.3.2 (429f97ae6b@2025-04-09T09:09:27)",
}
"""What a runtime of each version of the interface says of itself."""


def library(version: tuple[int, int] = (2, 0), *, mini: bool = False, compiler: str = "cc") -> Path:
    """The stand-in as a shared library, built once a process; skips the test where there is no such compiler.

    `mini` makes the library of RV1103 and RV1106, librknnmrt.so.
    """
    if shutil.which(compiler) is None:
        pytest.skip(f"needs a C compiler ({compiler})")
    return _built(version, mini, compiler)


def build(path: Path, version: tuple[int, int] = (2, 0), *, mini: bool = False, compiler: str = "cc") -> None:
    """Compile the stand-in to `path`; any warning is an error."""
    command = [compiler, "-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    command += [f"-DSTANDIN_API={version[0] * 100 + version[1]}", f'-DSTANDIN_VERSION="{VERSIONS[version]}"']
    command += ["-DSTANDIN_MINI"] if mini else []
    done = subprocess.run([*command, "-o", path, SOURCE, "-lm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@functools.cache
def _built(version: tuple[int, int], mini: bool, compiler: str) -> Path:
    name = "librknnmrt.so" if mini else "librknnrt.so"
    path = Path(tempfile.mkdtemp(prefix=f"standin-{version[0]}.{version[1]}-", dir=_folder())) / name
    build(path, version, mini=mini, compiler=compiler)
    return path


@functools.cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="librknnrt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
