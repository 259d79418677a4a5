"""What all tests run under: property tests without deadlines, and signals as a terminal gives them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

# A shared machine pauses a process for longer than any useful deadline.
settings.register_profile("here", deadline=None)
# A red run should mean that the change broke something, not that a new example was drawn; print how to repeat it.
settings.register_profile("continuous", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("continuous" if os.environ.get("CI") else "here")

# A run that was started to outlive its terminal, as by nohup, would hand on to every program that it hears no hang-up.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several processes a folder with a name as long as that of one: some tests see paths on a screen."""
    if hasattr(config, "workerinput"):
        config.option.basetemp = tempfile.mkdtemp(prefix="pytest-of-worker-")
        # The size of the terminal that the tests were started on is no other's.
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that run the app on a terminal run one after the other: they count what comes within a time."""
    for item in items:
        module = getattr(item, "module", None)
        origins = {getattr(value, "__module__", None) for value in vars(module).values()} if module else set()
        if origins & {"tests.terminal", "tests.rknn_tui.real_app"}:
            # Two at a time still leave each other alone.
            group = "bytes" if item.path.stem in ("test_budgets", "test_terminal") else "terminal"
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take those folders away."""
    if hasattr(config, "workerinput"):
        shutil.rmtree(config.option.basetemp, ignore_errors=True)
