"""Fixtures of the tests that go the whole way."""

import pytest

from tests.doubles.boards_fixtures import (  # noqa: F401
    _shared_adb_server,
    adb_environment,
    adb_server,
    connected_board,
    make_board,
)
from tests.end_to_end.compiled_demo import CompiledDemo, compiled_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> CompiledDemo:
    """The bundled model, compiled for an RK3588 that is played."""
    return compiled_demo(tmp_path_factory.mktemp("demo"))
