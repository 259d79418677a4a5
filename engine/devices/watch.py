"""A process that watches the boards for the app: it tells the list whenever it changes, and listens to what to ask.

Run as `python -m engine.devices.watch`. Each event is a line of JSON on standard output, `{"boards": [...], "faults":
[...]}`, boards as `engine.boards.Board`. Each line of JSON on standard input is a command: `{"visible": bool}`, whether
somebody looks (what changes by itself is read again only then), `{"refresh": true}`, ask everything again, and
`{"probe": id}`, ask that board. The end of input ends the process, whatever a board is doing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from engine.boards import READY, Board, BoardFacts
from engine.devices import adb_listing, discovery, probing
from engine.errors import EngineError
from engine.summaries import to_plain

SECONDS_BETWEEN_READINGS = 3.0
"""How often temperature, load and free memory are read again while somebody looks."""
SECONDS_BETWEEN_OTHERS = 30.0
"""How often boards over SSH, and the machine itself, are looked for while somebody looks."""
SECONDS_UNTIL_AGAIN = 2.0
"""How long after adb's server went away it is asked again."""
MAX_COMMAND_BYTES = 1 << 12

_CHANGING = ("free_memory", "free_disk", "temperature", "npu_load", "npu_hz")


class Watch:
    """The boards as they were told last, and the threads that ask them; `tell` gets each event as plain data."""

    def __init__(self, tell: Callable[[dict[str, Any]], object]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._adb: tuple[Board, ...] = ()
        self._others: tuple[Board, ...] = ()
        self._faults: dict[str, tuple[str, ...]] = {}
        self._facts: dict[str, BoardFacts] = {}
        self._asked: set[str] = set()
        self._told: dict[str, Any] | None = None
        self.visible = threading.Event()
        # One for each thread that waits: who is woken clears its own.
        self._ask_adb, self._ask_others = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start to watch."""
        for work in (self._follow_adb, self._look_for_others, self._read_again):
            self._thread(work)

    def command(self, message: dict[str, Any]) -> None:
        """Take in a command; what is none is ignored."""
        if isinstance(message.get("visible"), bool):
            if message["visible"]:
                self.visible.set()
            else:
                self.visible.clear()
        if message.get("refresh") is True:
            with self._lock:
                self._facts.clear()
                boards = (*self._adb, *self._others)
            self._ask_adb.set()
            self._ask_others.set()
            self._ask(boards)
        if isinstance(message.get("probe"), str):
            with self._lock:
                found = [one for one in (*self._adb, *self._others) if one.id == message["probe"]]
            self._ask(found)

    def _thread(self, work: Callable[[], object]) -> None:
        # Daemons: a board that hangs keeps nobody from leaving.
        threading.Thread(target=work, daemon=True).start()

    def _follow_adb(self) -> None:
        while True:
            try:
                for boards in adb_listing.track():
                    self._listed(boards, ())
                fault = "adb's server ended"
            except EngineError as error:
                fault = str(error)
            self._listed((), (fault,))
            self._ask_adb.wait(SECONDS_UNTIL_AGAIN)
            self._ask_adb.clear()

    def _listed(self, boards: Sequence[Board], faults: tuple[str, ...]) -> None:
        with self._lock:
            before = {one.id for one in self._adb if one.state == READY}
            self._adb, self._faults["adb"] = tuple(boards), faults
            here = {one.id for one in (*boards, *self._others)}
            for name in [name for name in self._facts if name not in here]:
                del self._facts[name]
            for one in boards:
                if one.state != READY:
                    self._facts.pop(one.id, None)
        self._changed()
        self._ask([one for one in boards if one.state == READY and one.id not in before])

    def _look_for_others(self) -> None:
        while True:
            self.visible.wait()
            with self._lock:
                known = [one.id for one in self._adb]
            found = discovery.list_others(known=known)
            with self._lock:
                self._others, self._faults["others"] = found.boards, found.faults
            self._changed()
            self._ask([one for one in found.boards if one.state == READY])
            self._ask_others.wait(SECONDS_BETWEEN_OTHERS)
            self._ask_others.clear()

    def _read_again(self) -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_READINGS)
            self.visible.wait()
            with self._lock:
                boards = [one for one in (*self._adb, *self._others) if one.id in self._facts]
            # Over SSH each question is a new connection: those are asked as seldom as they are looked for.
            self._ask([one for one in boards if one.transport != "ssh"], self._read)

    def _ask(self, boards: Sequence[Board], how: Callable[[Board], object] | None = None) -> None:
        """Ask boards, each in a thread of its own, unless it is being asked already."""
        for one in boards:
            if one.state != READY:
                continue
            with self._lock:
                if one.id in self._asked:
                    continue
                self._asked.add(one.id)

            def work(board: Board = one) -> None:
                try:
                    (how or self._probe)(board)
                finally:
                    with self._lock:
                        self._asked.discard(board.id)
                self._changed()

            self._thread(work)

    def _probe(self, board: Board) -> None:
        try:
            with discovery.open_transport(board.id) as transport:
                facts = probing.probe(transport)
        except EngineError as error:
            facts = BoardFacts(problems=(str(error),))
        with self._lock:
            if any(one.id == board.id for one in (*self._adb, *self._others)):
                self._facts[board.id] = facts

    def _read(self, board: Board) -> None:
        try:
            with discovery.open_transport(board.id) as transport:
                read = probing.readings(transport)
        except EngineError:
            # The listing tells of boards that are gone; one that is busy is read the next time.
            return
        with self._lock:
            known = self._facts.get(board.id)
            if known is not None:
                changes = {name: getattr(read, name) for name in _CHANGING}
                self._facts[board.id] = dataclasses.replace(known, **changes)

    def _changed(self) -> None:
        with self._lock:
            boards = [dataclasses.replace(one, facts=self._facts.get(one.id)) for one in (*self._adb, *self._others)]
            faults = [fault for way in self._faults.values() for fault in way]
            event = {"boards": to_plain(boards), "faults": faults}
            if event == self._told:
                return
            self._told = event
            self._tell(event)


def serve(reader: IO[bytes], writer: IO[bytes]) -> None:
    """Watch until `reader` ends."""

    def tell(event: dict[str, Any]) -> None:
        try:
            writer.write(json.dumps(event, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n")
            writer.flush()
        except (BrokenPipeError, ValueError):
            # Nobody listens any more; the reader sees the end of input at the same moment.
            pass

    watch = Watch(tell)
    watch.start()
    while line := reader.readline(MAX_COMMAND_BYTES + 1):
        if len(line) > MAX_COMMAND_BYTES:
            break
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict):
            watch.command(message)


def main() -> None:
    """Watch for whoever started this process."""
    serve(sys.stdin.buffer, sys.stdout.buffer)
    # Threads may hang in a call to a board.
    os._exit(0)


if __name__ == "__main__":
    main()
