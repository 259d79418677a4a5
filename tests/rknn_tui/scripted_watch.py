"""Tells of boards as a test wants it: `python scripted_watch.py FOLDER`.

Lines that the test adds to FOLDER/lines go out as they are, FOLDER/commands gets each command that comes in. A line
`!end CODE` ends the process, and `!deaf` makes it hang at the end of its input. Without FOLDER it tells of three.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

FACTS = {
    "chip": "rk3588",
    "system": "Debian 12",
    "runtime": "2.3.2",
    "driver": "0.9.8",
    "free_memory": 3 << 30,
    "temperature": 41.2,
    "npu_load": [0, 12, 100],
}
SOME = [
    {"id": "515e9b401c060c0b", "transport": "adb", "state": "device", "facts": FACTS},
    {"id": "0123456789ABCDEF", "transport": "adb", "state": "unauthorized", "note": "unauthorised: accept the key"},
    {"id": "ssh://bench", "transport": "ssh", "state": "device", "facts": {**FACTS, "problems": ["no Python 3"]}},
]


def listen(commands: Path | None, deaf: threading.Event) -> None:
    for line in sys.stdin:
        if commands is not None:
            with commands.open("a") as file:
                file.write(line)
    while deaf.is_set():
        time.sleep(1)
    os._exit(0)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    deaf = threading.Event()
    threading.Thread(target=listen, args=(folder / "commands" if folder else None, deaf), daemon=True).start()
    if folder is None:
        print(json.dumps({"boards": SOME, "faults": []}), flush=True)
        threading.Event().wait()
        return
    done = 0
    while True:
        path = folder / "lines"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for line in lines[done:]:
            if line.startswith(b"!end"):
                # The next life begins after it.
                path.write_bytes(b"")
                os._exit(int(line.split()[1]))
            elif line == b"!deaf":
                deaf.set()
            else:
                sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()
        done = len(lines)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
