"""The boards that the tests of this folder are run on."""

from tests.doubles.boards_fixtures import *  # noqa: F403
from tests.doubles.boards_fixtures import _shared_adb_server  # noqa: F401
