"""How property tests run: without deadlines, and with the same examples every time in continuous runs."""

from __future__ import annotations

import os

from hypothesis import settings

# A shared machine pauses a process for longer than any useful deadline.
settings.register_profile("here", deadline=None)
# A red run should mean that the change broke something, not that a new example was drawn; print how to repeat it.
settings.register_profile("continuous", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("continuous" if os.environ.get("CI") else "here")
