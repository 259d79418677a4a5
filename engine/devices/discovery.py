"""Finds boards: what adb sees, what the user's settings name for SSH, and this machine where it is one itself."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.boards import READY, Board, BoardFacts
from engine.devices import adb_listing, ntb, probing
from engine.devices.adb_server import SECONDS as ADB_SECONDS
from engine.devices.transport import Transport
from engine.errors import ConfigError, DeviceError, DeviceLostError, EngineError
from engine.targets import find_target

SECONDS = 5.0
LOCAL = "local"
MAX_SETTINGS_BYTES = 1 << 20
MAX_SSH_BOARDS = 64

_SSH_ID = re.compile(
    r"ssh://(?:[A-Za-z0-9._][A-Za-z0-9._-]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._][A-Za-z0-9._-]*)(?::[0-9]{1,5})?"
)
_DEVICE_TREE = Path("/proc/device-tree/compatible")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The boards that were found, and in words which ways could not be asked and why."""

    boards: tuple[Board, ...]
    faults: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SshSettings:
    """What devices.yaml says of SSH: `boards` are ids, `config` is the file for `ssh -F`, None for the user's own."""

    boards: tuple[str, ...] = ()
    config: str | None = None


def list_boards(settings: Sequence[str] | None = None, *, probe: bool = False, seconds: float = SECONDS) -> Listing:
    """All boards: those of adb in its order, then those over SSH, this machine, and USB devices that cannot be used.

    `settings` are ids of boards over SSH, None for those of the user's devices.yaml. With `probe` each board that is
    ready is asked what it is, all at once, for at most `seconds`. Faults, such as that no adb server runs, are told
    beside; this never raises for them.
    """
    boards: list[Board] = []
    faults: list[str] = []
    try:
        boards += adb_listing.list_devices(seconds=min(seconds, ADB_SECONDS))
    except EngineError as error:
        faults.append(str(error))
    others = list_others(settings, seconds=seconds, known=[one.id for one in boards])
    boards += others.boards
    faults += others.faults
    if probe:
        answers = _all_at_once({one.id: one.id for one in boards if one.state == READY}, _facts, seconds)
        silent = BoardFacts(problems=(f"the board did not tell what it is within {seconds:g} s",))
        boards = [
            dataclasses.replace(one, facts=answers.get(one.id, silent)) if one.state == READY else one for one in boards
        ]
    return Listing(tuple(boards), tuple(faults))


def list_others(
    settings: Sequence[str] | None = None, *, seconds: float = SECONDS, known: Sequence[str] = ()
) -> Listing:
    """The boards that adb does not tell of: over SSH (each is asked whether it answers), this machine, NTB devices.

    `known` are the serial numbers that adb lists.
    """
    faults: list[str] = []
    try:
        ids = ssh_settings().boards if settings is None else tuple(settings)
    except EngineError as error:
        ids, faults = (), [str(error)]
    states = _all_at_once({one: one for one in dict.fromkeys(ids)}, _ssh_state, seconds)
    silent = ("unreachable", f"no answer within {seconds:g} s")
    boards = [Board(one, "ssh", *states.get(one, silent)) for one in dict.fromkeys(ids)]
    if local_chip():
        boards.append(Board(LOCAL, "local", READY, model=local_chip()))
    return Listing((*boards, *ntb.list_usb(known)), tuple(faults))


def open_transport(device: str | None = None, *, target: str | None = None) -> Transport:
    """The way to the board called `device`; None is for the only one that is ready, of the chip `target` where given.

    A full id is not looked up first: what is wrong with it is told by the first call. Raises DeviceLostError where
    there is no board, DeviceError where several could be meant, ConfigError for an unknown target.
    """
    if device is None:
        device = _only(target)
    if device == LOCAL:
        from engine.devices.transports.local import LocalTransport

        return LocalTransport()
    if device.startswith("ssh://"):
        _checked_ssh(device, "device")
        from engine.devices.transports.ssh import SshTransport

        return SshTransport(device, config=_ssh_config())
    if any(re.fullmatch(pattern, device) for pattern in ntb.NTB_SERIALS):
        raise DeviceError("models cannot be run on this board", where=device, hint=ntb.NTB_NOTE)
    from engine.devices.transports.adb import AdbTransport

    return AdbTransport(device)


def _only(target: str | None) -> str:
    wanted = "" if target is None else find_target(target).name
    listing = list_boards()
    ready = [one for one in listing.boards if one.state == READY]
    if wanted and len(ready) > 1:
        ready = [one for one in list_boards(probe=True).boards if one.state == READY]
        ready = [one for one in ready if one.facts is not None and one.facts.chip == wanted] or ready
    if len(ready) == 1:
        return ready[0].id
    if ready:
        names = ", ".join(f"{one.id} ({one.facts.chip})" if one.facts and one.facts.chip else one.id for one in ready)
        raise DeviceError(f"several boards are connected: {names}", hint="say which one is meant by its id")
    told = [f"{one.id}: {one.note or one.state}" for one in listing.boards] + list(listing.faults)
    raise DeviceLostError(
        "no board is ready" if listing.boards else "no board is connected",
        hint="; ".join(told) or "connect the board's USB OTG port and switch it on, or name one as ssh://user@host",
    )


def toolkit_listing(listing: Listing) -> tuple[str, list[str], list[str]]:
    """What the toolkit's list_devices prints, and the two lists that it returns: boards over adb, and in NTB mode."""
    adb = [one.id for one in listing.boards if one.transport == "adb"]
    others = [one.id for one in listing.boards if one.transport == "ntb"]
    lines: list[str] = []
    for kind, ids in (("adb", adb), ("ntb", others)):
        if ids:
            lines += [f"all device(s) with {kind} mode:", *ids]
    stars = "*" * 25
    return "\n".join([stars, *(lines or ["None devices connected."]), stars]), adb, others


def local_chip() -> str:
    """The chip of this machine where it is a Rockchip board that models can be built for, else ''."""
    try:
        with _DEVICE_TREE.open("rb") as file:
            return probing.chip_of(file.read(4096).decode("utf-8", "replace"))
    except OSError:
        return ""


def settings_path(environment: Mapping[str, str] | None = None) -> Path:
    """Where the user's devices.yaml is: rknn-tui/devices.yaml in XDG_CONFIG_HOME, which is ~/.config by default."""
    variables = os.environ if environment is None else environment
    base = variables.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "rknn-tui" / "devices.yaml"


def ssh_settings(path: Path | None = None) -> SshSettings:
    """What devices.yaml names. A file that is not there names nothing. Raises ConfigError, naming the file.

    `ssh:` is a list of ids such as ssh://user@host:port, or of names of hosts of the ssh configuration;
    `from_ssh_config: true` adds each literal Host of that configuration; `config:` is another such file.
    """
    file = path or settings_path()
    where = str(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_SETTINGS_BYTES + 1)
    except FileNotFoundError:
        return SshSettings(config=os.environ.get("RKNN_TUI_SSH_CONFIG") or None)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where) from error
    if len(content) > MAX_SETTINGS_BYTES:
        raise ConfigError("larger than 1 MB: this is no list of boards", where=where)
    from engine.plain_yaml import read_yaml

    document = read_yaml(content, where)
    if document is None:
        document = {}
    if not isinstance(document, dict) or not document.keys() <= {"ssh", "from_ssh_config", "config"}:
        raise ConfigError("expected `ssh:`, `from_ssh_config:` and `config:` only", where=where)
    listed = document.get("ssh") or []
    if not isinstance(listed, list) or len(listed) > MAX_SSH_BOARDS or not all(isinstance(x, str) for x in listed):
        raise ConfigError(f"expected a list of at most {MAX_SSH_BOARDS} names", where=f"{where}: ssh")
    config = document.get("config")
    if not isinstance(config, (str, type(None))):
        raise ConfigError("expected the path of a file", where=f"{where}: config")
    every = document.get("from_ssh_config", False)
    if not isinstance(every, bool):
        raise ConfigError("expected true or false", where=f"{where}: from_ssh_config")
    chosen = os.environ.get("RKNN_TUI_SSH_CONFIG") or (str(Path(config).expanduser()) if config else None)
    names = [*listed, *(_literal_hosts(chosen) if every else [])]
    ids = [_checked_ssh(one if one.startswith("ssh://") else f"ssh://{one}", f"{where}: ssh") for one in names]
    return SshSettings(tuple(dict.fromkeys(ids))[:MAX_SSH_BOARDS], chosen)


def _literal_hosts(config: str | None) -> list[str]:
    """The hosts of an ssh configuration that are names and no patterns, as ssh_config(5) has them."""
    try:
        with Path(config or "~/.ssh/config").expanduser().open("rb") as stream:
            text = stream.read(MAX_SETTINGS_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    found: list[str] = []
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if len(words) > 1 and words[0].lower() == "host":
            found += [word for word in words[1:] if re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._-]*", word)]
    return found


def _checked_ssh(name: str, where: str) -> str:
    if not _SSH_ID.fullmatch(name):
        raise ConfigError(f"{name[:100]!r} is no board over SSH", where=where, hint="such as ssh://user@host:22")
    return name


def _ssh_config() -> str | None:
    try:
        return ssh_settings().config
    except EngineError:
        # What is wrong with the list of boards is told by the listing; an id that was given by hand works without it.
        return os.environ.get("RKNN_TUI_SSH_CONFIG") or None


def _facts(device: str) -> BoardFacts:
    try:
        with open_transport(device) as transport:
            return probing.probe(transport)
    except EngineError as error:
        return BoardFacts(problems=(str(error),))


def _ssh_state(device: str) -> tuple[str, str]:
    try:
        with open_transport(device) as transport:
            transport.run("true", seconds=SECONDS)
    except EngineError as error:
        return "unreachable", f"{error.what} ({error.hint})" if error.hint else error.what
    return READY, ""


def _all_at_once(work: Mapping[str, str], ask: Callable[[str], Any], seconds: float) -> dict[str, Any]:
    """What `ask` answers for each, asked in threads of their own; what is not there after `seconds` is left out."""
    answers: dict[str, Any] = {}

    def one(name: str, device: str) -> None:
        answers[name] = ask(device)

    # Daemons: a board that hangs keeps nobody from leaving.
    threads = [threading.Thread(target=one, args=item, daemon=True) for item in work.items()]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(answers)
