"""What is said, and written down, of a fault of the program itself."""

from __future__ import annotations

import traceback

from rknn_tui.settings import state_folder
from rknn_tui.symbols import drawable

LONGEST = 200
"""Characters of an error's message that are shown; the log has all of it."""


def sentence(error: BaseException | None, *, kept: bool) -> str:
    """Write the details to crash.log in the state folder, and return the one line for the terminal.

    kept: whether unsaved edits were written down.
    """
    log = state_folder() / "crash.log"
    where = f"; {log} has the details"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)) if error else "", errors="backslashreplace")
    except OSError:
        where = ""
    what = f"{type(error).__name__}: {error}" if error is not None else "an error"
    what = drawable(" ".join(what.split()))
    if len(what) > LONGEST:
        what = f"{what[:LONGEST]} and more"
    edits = "Unsaved edits are kept." if kept else "Unsaved edits could not be written down."
    return f"rknn-tui ended by a fault of its own ({what}){where}. {edits}"
