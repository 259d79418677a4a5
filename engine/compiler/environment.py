"""Where the vendor's environment lives, what it must hold, and how it is installed and looked at."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.compiler.bridge import INSTALL_HINT, Toolkit, environment
from engine.compiler.errors import CompilerError
from engine.errors import Cancelled
from engine.progress import Progress

VARIABLE = "RKNN_TUI_TOOLKIT"
"""Names the python of an environment that has the toolkit, in place of the one that is installed here."""

PACKAGE, VERSION = "rknn-toolkit2", "2.5.0"
# What 2.5.0 was measured with. Its metadata bounds them from above; newer ones of the rest are fine.
PINS = (
    f"{PACKAGE}=={VERSION}",
    "torch==2.4.0",
    "numpy==1.26.4",
    "onnx==1.18.0",
    "onnxruntime==1.19.2; python_version < '3.10'",
    "onnxruntime>=1.20,<1.27; python_version >= '3.10'",
    "protobuf==4.25.4",
    # Newer ones have no pkg_resources, which older parts of it import.
    "setuptools<81",
)
PYTHONS = ((3, 8), (3, 12))
"""The first and the last Python that the package has wheels for."""
MACHINES = ("x86_64", "aarch64")
OLDEST = (2, 3)
"""The oldest toolkit whose calls are as they are used here."""

# Measured: 1.1 GB with torch for the processor alone, which is in an index of its own, 5.6 GB with the usual one, which
# pip unpacks from 2.8 GB of wheels.
_BYTES_NEEDED, _BYTES_NEEDED_CUDA = 3 << 30, 9 << 30
_MARK = "installed.txt"
_VERSION_NUMBERS = re.compile(r"(\d+)\.(\d+)")


@dataclasses.dataclass(frozen=True)
class Status:
    """What there is of the vendor's environment. `problem` is '' where it can be used; `hint` is the step to take."""

    folder: str
    python: str
    versions: Mapping[str, str]
    problem: str = ""
    hint: str = ""


def default_folder() -> Path:
    """The folder of the user's data in which the environment is installed."""
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG rules say that relative paths are to be ignored.
    base = given if given.is_absolute() else Path.home() / ".local" / "share"
    return base / "rknn-tui" / "compiler"


def find_python(folder: Path | None = None) -> Path:
    """The interpreter of the vendor's environment: in `folder`, or as RKNN_TUI_TOOLKIT names it, or where `install`
    puts it. Raises CompilerError where there is none."""
    named = os.environ.get(VARIABLE, "")
    if folder is None and named:
        python = Path(named)
        if not python.is_file():
            raise CompilerError("is no python", where=f"{VARIABLE}={named}", hint="name the environment's bin/python")
        return python
    place = folder or default_folder()
    python = _python_in(place)
    if not python.exists() or not (place / _MARK).exists():
        what = "is not installed" if not python.exists() else "was installed only in part"
        raise CompilerError(f"the vendor's toolkit {what}", where=str(place), hint=INSTALL_HINT)
    return python


def check_versions(versions: Mapping[str, str]) -> str:
    """The toolkit's version. Raises CompilerError where it is not there, or too old."""
    found = versions.get(PACKAGE, "") if isinstance(versions, Mapping) else ""
    numbers = _VERSION_NUMBERS.match(found)
    if numbers is None:
        raise CompilerError(f"the vendor's environment has no {PACKAGE}", hint=INSTALL_HINT)
    if (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise CompilerError(
            f"{PACKAGE} {found} is too old; {'.'.join(map(str, OLDEST))} is the oldest that is driven",
            hint=INSTALL_HINT,
        )
    return found


def status(folder: Path | None = None, progress: Progress | None = None) -> Status:
    """What there is. Starts the environment's python where there is one, and imports the toolkit in it."""
    place = str(folder or default_folder())
    try:
        python = find_python(folder)
    except CompilerError as error:
        return Status(place, "", {}, f"{error.where}: {error.what}", error.hint)
    versions: Mapping[str, str] = {}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="rknn-tui-status-", ignore_cleanup_errors=True) as name,
            Toolkit(python, Path(name), progress=progress) as toolkit,
        ):
            versions = toolkit.call("versions", limit=120.0, stage="looking at the toolkit")
            check_versions(versions)
            toolkit.call("open", limit=120.0, stage="importing the toolkit")
    except Cancelled:
        raise
    except CompilerError as error:
        return Status(place, str(python), versions, str(error.what), error.hint or INSTALL_HINT)
    return Status(place, str(python), versions)


def install(
    folder: Path | None = None,
    python: str | None = None,
    *,
    options: Sequence[str] = (),
    progress: Progress | None = None,
) -> Status:
    """Make the environment in `folder` and look at it; one that is whole already stays, half of one is made anew.

    `python` makes it, by default the one that runs this; `options` are for pip (an index, a folder of wheels). Raises
    CompilerError for a machine or a Python that there are no wheels for, a disk without room, and what pip says;
    Cancelled, after which it can be run again.
    """
    place, progress = folder or default_folder(), progress or Progress()
    base = Path(python or sys.executable)
    check_machine(platform.system(), platform.machine())
    _check_python(base)
    made = Installation(place, base, tuple(options), progress)
    if not (place / _MARK).exists():
        made.run()
    return status(place, progress)


def check_machine(system: str, machine: str) -> None:
    """Raise CompilerError where the package has no wheels for this machine."""
    if system != "Linux" or machine not in MACHINES:
        raise CompilerError(
            f"{PACKAGE} has no wheels for {system} on {machine}",
            hint=f"run it on Linux with {' or '.join(MACHINES)}; all else here needs no toolkit",
        )


class Installation:
    """Makes the environment step by step; a mark is written when all of them are done."""

    def __init__(self, folder: Path, python: Path, options: tuple[str, ...], progress: Progress) -> None:
        self.folder, self.python = folder, python
        self._options, self._progress = options, progress

    def run(self) -> None:
        """All steps. Raises CompilerError, Cancelled."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise CompilerError(f"cannot be made: {error.strerror or error}", where=str(self.folder)) from error
        # Whoever gives pip another index has the small torch there.
        needed = _BYTES_NEEDED if self._options else _BYTES_NEEDED_CUDA
        if room < needed:
            raise CompilerError(
                f"needs {needed >> 30} GB, and there are {room / (1 << 30):.1f} GB left",
                where=str(self.folder),
                hint="--folder DIR names another place; an index with torch for the processor alone, given as "
                f"--pip-option=--extra-index-url=URL, leaves {_BYTES_NEEDED >> 30} GB",
            )
        self._step(0, "making the environment", [str(self.python), "-m", "venv", "--clear", str(self.folder / "venv")])
        pip = [str(_python_in(self.folder)), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        self._step(1, f"{PACKAGE} {VERSION}", [*pip, *self._options, *PINS])
        (self.folder / _MARK).write_text("\n".join(PINS) + "\n", encoding="utf-8")

    def _step(self, done: int, what: str, command: list[str]) -> None:
        self._progress.step(f"installing: {what}", 0, 0)
        log = self.folder / "install.log"
        with log.open("ab" if done else "wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
            try:
                while True:
                    try:
                        code = process.wait(0.2)
                        break
                    except subprocess.TimeoutExpired:
                        self._progress.step(f"installing: {what}", _packages_in(log), 0)
            except BaseException:
                end_group(process)
                raise
        if code:
            raise CompilerError(f"{what} cannot be installed: {_last_words(log)}", where=str(log))


def _environment() -> dict[str, str]:
    found = environment(Path(tempfile.gettempdir()))
    found.pop("PIP_CONSTRAINT", None)
    return found


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and all of the group."""
    if process.returncode is None:
        os.killpg(process.pid, 9)
        process.wait()


def _packages_in(log: Path) -> int:
    """How many packages pip has begun with."""
    return log.read_bytes().count(b"\nCollecting ")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return ((errors or lines or ["nothing was said"])[-1])[:400]


def _check_python(python: Path) -> None:
    try:
        found = subprocess.run(
            [str(python), "-c", "import sys; print(*sys.version_info[:2]); import venv, ensurepip"],
            capture_output=True,
            text=True,
            timeout=60,
            env=_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"cannot be run: {error}", where=str(python), hint="--python names another") from error
    numbers = found.stdout.split()
    if len(numbers) < 2:
        raise CompilerError("is no python", where=str(python), hint="--python names another")
    version = (int(numbers[0]), int(numbers[1]))
    first, last = (".".join(map(str, one)) for one in PYTHONS)
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        raise CompilerError(
            f"is Python {version[0]}.{version[1]}; {PACKAGE} {VERSION} has wheels for {first} to {last}",
            where=str(python),
            hint="--python PATH names one of those",
        )
    if found.returncode:
        raise CompilerError("has no venv module", where=str(python), hint="install it, such as python3-venv")


def _python_in(folder: Path) -> Path:
    return folder / "venv" / "bin" / "python"
