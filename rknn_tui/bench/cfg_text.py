"""The cfg's text, kept in step with the edits: what is typed there moves the graph, and the other way round."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from engine.errors import Cancelled, EngineError
from engine.history import EditState
from engine.host_protocol import EngineDiedError
from engine.summaries import LARGEST_TEXT, CfgReading, Fault
from rknn_tui.bench.calls import Calls
from rknn_tui.bench.dialogue import Notice, Question, Reply, notice_of
from rknn_tui.bench.editing import Editing, edit_changes
from rknn_tui.bench.kept import LeftText

Then = Callable[[], object]
RECOVERY = "recovery"
"""The group of the step that brings edits and text back."""


class TextHearer(Protocol):
    """What hears of the text."""

    def text_changed(self) -> object:
        """The text, or what is wrong with it, is another now, and not because someone typed there."""

    def told(self, reply: Reply) -> object:
        """There is something to say."""


class CfgText:
    """`text` is None until somebody asks for it; `path` is the file that it was read from or written to, '' for none.

    `expresses` are the edits that the text asks for. Where other edits are made meanwhile, both changes count.
    """

    def __init__(self, calls: Calls, editing: Editing, hearer: TextHearer) -> None:
        self._calls, self._editing, self._hearer = calls, editing, hearer
        self.forget()

    def forget(self) -> None:
        """No model is built: there is no text."""
        self.text: str | None = None
        self.saved: str | None = None
        self.path = ""
        self.faults: tuple[Fault, ...] = ()
        self.typed_at_all = False
        self._expresses: EditState | None = None
        self._checksum: str | None = None
        # Whether the text was not read yet, whether it is that of an earlier step, and what is being read.
        self._unread = self._stepped = False
        self._read_now: str | None = None
        self._busy = False
        self._then: list[Then] = []
        self._recovering: LeftText | None = None
        # What the next change by hand starts from.
        self._before: str | None = None

    @property
    def unsaved(self) -> bool:
        """Whether the text, as far as it was asked for, differs from the file."""
        if self._recovering is not None:
            return self._recovering.typed
        return self.text is not None and self.saved is not None and self.text != self.saved

    @property
    def faulty(self) -> bool:
        """Whether the text cannot be used as it stands."""
        return bool(self.faults)

    # Between text and edits

    def bring_up_to_date(self, then: Then = lambda: None) -> None:
        """Have the text express the edits in force, and then go on. A text with faults waits for its mending."""
        if self._busy:
            self._then.append(then)
        elif self._unread:
            self._then.append(then)
            self.read()
        elif self.text is None:
            self._start("cfg_text", {}, self._took_text, then)
        elif not self.faults and self._expresses != self._editing.state:
            state = self._editing.state
            params = {"text": self.text, **_edits(state)}
            self._start("cfg_write", params, lambda value: self._took_written(value, state), then)
        else:
            then()

    def type(self, text: str) -> None:
        """Someone typed: the text is this now. `read` looks at what it asks for."""
        if not self._editing.ready:
            return
        self.text, self._unread, self._stepped, self.typed_at_all = text, True, False, True

    def read(self, group: str = "") -> None:
        """See what the typed text asks for, and make it so; `group` joins what is typed in one go into one step."""
        if self.text is None or not self._unread or self._busy:
            return
        text, take = self.text, self._took_old_reading if self._stepped else self._took_reading
        self._read_now = None if self._stepped else text
        self._unread = self._stepped = False
        self._start("cfg_read", {"text": text}, lambda value: take(value, text, group))

    def settle(self) -> None:
        """Make a step of what was typed just now and not read yet."""
        if self.text is not None and not self._stepped and (self._unread or self._read_now is not None):
            self._step(self._editing.state, self.text, "")

    @property
    def recovering(self) -> bool:
        """Whether a text that was left comes back, as soon as the engine has answered."""
        return self._recovering is not None

    @property
    def left(self) -> LeftText | None:
        """The text to go on with after the engine or the app is gone; None where it is what the engine writes."""
        if self._recovering is not None:
            return self._recovering
        if self.text is None or not (self.path or self.typed_at_all):
            return None
        typed = self.typed_at_all and self.unsaved
        saved = self.saved if self.path else None
        return LeftText(self.text, self.path, self._expresses, typed, saved, self._checksum)

    def recover(self, left: LeftText, label: str) -> None:
        """Go on with a text that was left, as a part of the step that brought back the edits in force with it.

        Until the engine has answered, what was left is still what there is to be kept.
        """
        self._recovering = left

        def take() -> None:
            self._recovering = None
            self.text, self.path, self.typed_at_all = left.text, left.path, left.typed
            if left.saved is not None:
                self.saved, self._checksum = left.saved, left.checksum
            self._editing.do(label, self._editing.state, RECOVERY, text=left.text, text_before=self._before)
            self._before = left.text
            self._expresses = left.expresses and dataclasses.replace(left.expresses, biases="")
            self._unread, self._stepped = True, False
            self.read(RECOVERY)
            self._hearer.text_changed()

        self.bring_up_to_date(take)

    def step_back(self, text: str) -> None:
        """The text is what it was before or after a change by hand that was undone or redone."""
        self.text = self._before = text
        self._unread, self._stepped, self._read_now = True, True, None
        self.faults = ()
        self._hearer.text_changed()
        self.bring_up_to_date()

    def _took_text(self, value: Any) -> None:
        self.text = self._before = str(value)
        self._expresses = None
        saved = self._editing.history.saved
        if self.saved is not None:
            return
        if saved == self._editing.state:
            self.saved = self.text
        else:
            # The engine's text has the edits of this moment in it; what they are compared with has not.
            self._start("cfg_write", {"text": self.text, **_edits(saved)}, self._took_saved)

    def _took_saved(self, value: Any) -> None:
        self.saved = str(value)

    def _took_written(self, value: Any, state: EditState) -> None:
        if not self._unread:
            self.text, self._expresses = str(value), state
            self._before = self.text
            self._hearer.text_changed()

    def _took_reading(self, reading: CfgReading, text: str, group: str) -> None:
        if self._read_now is None:
            return
        self._read_now = None
        self.faults = reading.faults
        state = self._editing.state
        if not reading.faults:
            before = self._expresses or state
            asked = _asked(reading, before)
            wishes, ranges = edit_changes(before, asked)
            if state == before:
                # The order of the lines is the text's.
                state = EditState(asked.wishes, asked.ranges, state.biases)
            else:
                state = state.with_wishes(wishes).with_ranges({r: tuple(e) if e else None for r, e in ranges.items()})
            self._expresses = asked
        self._step(state, text, group)
        self._hearer.text_changed()

    def _took_old_reading(self, reading: CfgReading, text: str, group: str) -> None:
        """The text of an earlier step was read: its edits are in force with that step already."""
        if self._unread:
            return
        self.faults = reading.faults
        if not reading.faults:
            self._expresses = _asked(reading, self._editing.state)
        self._hearer.text_changed()

    def _step(self, state: EditState, text: str, group: str) -> None:
        # A text with faults is a step too: what was typed can always be taken back.
        self._editing.do("edit of the cfg", state, group, text=text, text_before=self._before)
        self._before = text

    # Files

    def open(self, path: str, then: Then = lambda: None) -> None:
        """Read a cfg for the built model from a file: it and its edits replace what there is, as one step."""

        def took(value: Any) -> None:
            text, checksum = str(value["text"]), str(value["sha256"])
            self._start("cfg_read", {"text": text}, lambda reading: read(reading, text, checksum))

        def read(reading: CfgReading, text: str, checksum: str) -> None:
            self.settle()
            before, self._before = self._before, text
            self.text = self.saved = text
            self.path, self._checksum, self.faults = path, checksum, reading.faults
            self._unread, self._read_now = False, None
            state = self._editing.state
            if not reading.faults:
                state = EditState(reading.wishes, {row: tuple(ends) for row, ends in reading.ranges.items()})
                self._expresses = state
            self._editing.do(f"open {Path(path).name}", state, text=text, text_before=before)
            self._hearer.text_changed()
            if reading.faults:
                fault = reading.faults[0]
                more = f" and {len(reading.faults) - 1} more" if len(reading.faults) > 1 else ""
                self._hearer.told(Notice(f"{path} line {fault.line}: {fault.message}{more}", "error"))
                return
            self._editing.mark_saved()
            self._hearer.told(Notice(f"read {path}"))
            then()

        # What is there now is asked for first, to be what an undo goes back to.
        self.bring_up_to_date(lambda: self._start("cfg_open", {"path": path}, took))

    def save(self, path: str, then: Callable[[list[str]], object], *, overwrite: bool = False) -> None:
        """Write the text, with what it needs to be built from, and then go on with the files' names.

        A file that changed since it was read or written here stays as it is, and a text with faults is not written,
        unless `overwrite`.
        """

        def write() -> None:
            if self.faults and not overwrite:
                self._hearer.told(_faulty(path, self.faults[0]))
            elif overwrite:
                put(_checksum_of(path))
            else:
                put(self._checksum if path == self.path else None)

        def put(known: str | None) -> None:
            # Edits that are made while the file is written are not in it.
            text, state = self.text or "", self._editing.state
            params = {"path": path, "text": text, "known": known}
            self._start("save_cfg", params, lambda value: wrote(value, text, state))

        def wrote(value: Any, text: str, state: EditState) -> None:
            self.saved, self.path = text, path
            self._checksum = hashlib.sha256(text.encode()).hexdigest()
            if not self.faults:
                # Edits of the graph are in no text that cannot be read.
                self._editing.mark_saved(state)
            self._hearer.text_changed()
            then([str(name) for name in value])

        if self.faults:
            write()
        else:
            self.bring_up_to_date(write)

    def _start(
        self, method: str, params: dict[str, Any], take: Callable[[Any], object], then: Then | None = None
    ) -> None:
        self._busy = True
        if then is not None:
            self._then.append(then)

        def answer(value: Any, error: EngineError | None) -> None:
            self._busy = False
            if error is not None:
                self._then.clear()
                if not isinstance(error, (Cancelled, EngineDiedError)):
                    self._hearer.told(self._refusal(method, params, error))
                return
            take(value)
            if self._busy:
                return
            waiting, self._then = self._then, []
            for one in waiting:
                self.bring_up_to_date(one)

        self._calls.start(method, params, answer)

    def _refusal(self, method: str, params: dict[str, Any], error: EngineError) -> Reply:
        if method == "save_cfg" and ("changed on disk" in error.what or "exists already" in error.what):
            text = f"{params['path']} {error.what}. y writes over it, other keys keep it"
            return Question("overwrite_cfg", text, subject=str(params["path"]), confirm=True)
        return notice_of(error)


def _checksum_of(path: str) -> str | None:
    """The SHA-256 of a file that may be written over, whatever is in it; None where there is none to be read."""
    try:
        if not Path(path).is_file() or Path(path).stat().st_size > LARGEST_TEXT:
            return None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


def _faulty(path: str, fault: Fault) -> Question:
    text = f"line {fault.line}: {fault.message}\ny saves it all the same, other keys go back to it"
    return Question("save_faulty", text, subject=path, confirm=True)


def _asked(reading: CfgReading, before: EditState) -> EditState:
    """The edits that a text asks for; biases are not in it."""
    return EditState(reading.wishes, {row: tuple(ends) for row, ends in reading.ranges.items()}, before.biases)


def _edits(state: EditState) -> dict[str, Any]:
    return {"wishes": dict(state.wishes), "ranges": {row: list(ends) for row, ends in state.ranges.items()}}
