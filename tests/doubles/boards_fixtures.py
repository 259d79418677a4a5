"""Fixtures of boards for every folder of tests: `from tests.doubles.boards_fixtures import ...` in its conftest.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.adb_device import AdbDevice
from tests.doubles.fake_board import FakeBoard
from tests.doubles.own_adb_server import AdbServer, adb_found, running_adb_server

__all__ = ["ConnectedBoard", "adb_environment", "adb_server", "connected_board", "make_board"]


@dataclasses.dataclass(frozen=True)
class ConnectedBoard:
    """A board that the test's adb server knows as `id`."""

    id: str
    board: FakeBoard
    device: AdbDevice


@pytest.fixture(scope="session")
def _shared_adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    if adb_found() is None:
        pytest.skip("adb is not installed")
    with running_adb_server(tmp_path_factory.mktemp("adb")) as server:
        yield server


@pytest.fixture
def adb_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment in which nothing of the user's own is found: no settings of boards, no other adb server."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT", "RKNN_TUI_SSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def adb_server(_shared_adb_server: AdbServer, adb_environment: None, monkeypatch: pytest.MonkeyPatch) -> AdbServer:
    """A real adb server that no board is connected to; the environment leads to it."""
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.setenv(name, _shared_adb_server.environment[name])
    return _shared_adb_server


@pytest.fixture
def make_board(adb_server: AdbServer, tmp_path: Path) -> Iterator[Callable[..., ConnectedBoard]]:
    """Makes boards that are connected: `make_board(chip, kind=..., shell_v2=..., ...)`."""
    with ExitStack() as stack:
        names: list[str] = []

        def make(
            chip: str = "rk3588", *, shell_v2: bool = True, authorized: bool = True, **more: Any
        ) -> ConnectedBoard:
            board = stack.enter_context(FakeBoard(tmp_path / f"board{len(names)}", chip, **more))
            device = stack.enter_context(AdbDevice(board, shell_v2=shell_v2, authorized=authorized))
            names.append(adb_server.connect(device))
            return ConnectedBoard(names[-1], board, device)

        yield make
        for name in names:
            adb_server.ask(f"host:disconnect:{name}")


@pytest.fixture
def connected_board(make_board: Callable[..., ConnectedBoard]) -> ConnectedBoard:
    """An RK3588 with Debian, connected over adb."""
    return make_board()
