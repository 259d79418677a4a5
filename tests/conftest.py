"""What all tests run under: property tests without deadlines, and signals as a terminal gives them."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shared machine pauses a process for longer than any useful deadline.
settings.register_profile("here", deadline=None)
# A red run should mean that the change broke something, not that a new example was drawn; print how to repeat it.
settings.register_profile("continuous", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("continuous" if os.environ.get("CI") else "here")

# A run that was started to outlive its terminal, as by nohup, would hand on to every program that it hears no hang-up.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
