"""Fixtures of the tests that go the whole way."""

from tests.doubles.boards_fixtures import (  # noqa: F401
    _shared_adb_server,
    adb_environment,
    adb_server,
    connected_board,
    make_board,
)
