"""Where a model of `RKNN` runs once init_runtime was called: on the simulator or on a board, with the same calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from engine.api_calls import LOG, toolkit_call
from engine.board_reports import measured_memory_text, measured_perf_text, where_text
from engine.cli_console import print_result
from engine.config import Config
from engine.core_masks import NPU_CORE_AUTO, board_mask, cores_of
from engine.cost.reports import memory_text, perf_text
from engine.devices.on_board import OnBoard
from engine.errors import ConfigError, OrderError
from engine.session import Session
from engine.session_state import Array
from engine.summaries import AccuracyReport
from engine.targets import find_target


class RunningCalls(ABC):
    """The calls of `RKNN` that ask where the model runs, and for boards."""

    @abstractmethod
    def _initialized(self) -> Runtime:
        """Where the model runs. Raises OrderError before init_runtime."""

    @abstractmethod
    def _package_bytes(self) -> int | None:
        """The size of the package, where it was exported or loaded."""

    @toolkit_call(None)
    def eval_perf(
        self,
        inputs: Sequence[Array] | bool | None = None,
        is_print: bool | None = None,
        fix_freq: bool | None = None,
    ) -> str | None:
        """The time that the model takes, as a printed form; unless `is_print` is False it is also printed.

        A board is measured, on `inputs` or on zeros; its clock is fixed only where `fix_freq` is True, until release.
        The simulator estimates the time, for the target and the clock that the form names, and neither of the two
        changes it. After init_runtime(perf_debug=True) the form has a line a layer. Both ways to call it are taken:
        eval_perf(inputs, is_print) and, of later toolkits, eval_perf(is_print, fix_freq). Returns None on failure.
        """
        runtime = self._initialized()
        if isinstance(inputs, bool):
            # What stands second is then their fix_freq.
            inputs, is_print, fix_freq = None, inputs, is_print if fix_freq is None else fix_freq
        elif hasattr(inputs, "shape"):
            inputs = [cast(Array, inputs)]
        text = runtime.perf(inputs, fix_freq is True)
        if is_print is not False:
            print_result(text)
        return text

    @toolkit_call(None)
    def eval_memory(self, is_print: bool = True) -> dict[str, int] | None:
        """The bytes of memory that the model takes: of its weights, of the tensors between layers, and of both.

        A board tells them; the simulator estimates them. init_runtime need not have been called with eval_mem=True.
        With `is_print` a form is printed, with the size of the package where it was exported or loaded. Returns None on
        failure.
        """
        sizes, text = self._initialized().memory(self._package_bytes())
        if is_print:
            print_result(text)
        return sizes

    @toolkit_call(None)
    def get_sdk_version(self) -> str | None:
        """The versions of a board's runtime and driver, as the guide's form (3.5.11). Returns None on failure."""
        return self._initialized().version()

    @toolkit_call(([], []))
    def list_devices(self) -> tuple[list[str], list[str]]:
        """The ids of the boards that are connected by adb, and of those by ntb; they are also printed."""
        found, text = boards_listed()
        print_result(text)
        return found


class RuntimeOptions(NamedTuple):
    """The arguments of init_runtime."""

    target: str | None
    device_id: str | None
    perf_debug: bool = False
    eval_mem: bool = False
    async_mode: bool = False
    core_mask: int = NPU_CORE_AUTO


class Runtime(Protocol):
    """Where a model runs. Calls raise EngineError."""

    def infer(self, inputs: Sequence[Array], data_format: Any, inputs_pass_through: Any) -> list[Array]:
        """As `Session.infer`."""

    def perf(self, inputs: Sequence[Array] | None, fix_freq: bool) -> str:
        """The form of eval_perf."""

    def memory(self, model_bytes: int | None) -> tuple[dict[str, int], str]:
        """What eval_memory returns, and its form."""

    def version(self) -> str:
        """The form of get_sdk_version."""

    def close(self) -> None:
        """Let go of what it holds; never raises."""


class SimulatorRuntime:
    """The simulator, whose time and memory are estimates for so many cores."""

    def __init__(self, session: Session, perf_debug: bool, cores: int) -> None:
        self._session, self._perf_debug, self._cores = session, perf_debug, cores

    def infer(self, inputs: Sequence[Array], data_format: Any, inputs_pass_through: Any) -> list[Array]:
        """As Runtime has it."""
        return self._session.infer(inputs, data_format=data_format, inputs_pass_through=inputs_pass_through)

    def perf(self, inputs: Sequence[Array] | None, fix_freq: bool) -> str:
        """As Runtime has it; nothing is run."""
        return perf_text(self._session.estimate(cores=self._cores), worst=None if self._perf_debug else 0)

    def memory(self, model_bytes: int | None) -> tuple[dict[str, int], str]:
        """As Runtime has it."""
        estimate = self._session.estimate(cores=self._cores)
        memory = estimate.memory
        sizes = _sizes(memory.weight_bytes, memory.internal_bytes, memory.total_bytes)
        return sizes, memory_text(estimate, model_bytes=model_bytes)

    def version(self) -> str:
        """Raises OrderError: the simulator has no such versions."""
        raise OrderError("the version is read from a board", hint="init_runtime(target=...) goes to one first")

    def close(self) -> None:
        """As Runtime has it."""


class BoardRuntime:
    """A board that the model is open on."""

    def __init__(self, board: OnBoard, options: RuntimeOptions) -> None:
        self._board, self._options = board, options

    def infer(self, inputs: Sequence[Array], data_format: Any, inputs_pass_through: Any) -> list[Array]:
        """As Runtime has it."""
        return self._board.infer(inputs, data_format=data_format, inputs_pass_through=inputs_pass_through)

    def perf(self, inputs: Sequence[Array] | None, fix_freq: bool) -> str:
        """As Runtime has it; measured. `fix_freq` holds the NPU's clock at its highest until `close`."""
        return measured_perf_text(self._board.perf(inputs, pin=fix_freq))

    def memory(self, model_bytes: int | None) -> tuple[dict[str, int], str]:
        """As Runtime has it; the runtime's own figures."""
        if not self._options.eval_mem:
            LOG.warning("eval_memory: init_runtime was called without eval_mem=True, which is not needed here")
        found = self._board.memory()
        sizes = _sizes(found.weight_bytes, found.internal_bytes, found.total_bytes)
        return sizes, measured_memory_text(found, model_bytes=model_bytes)

    def version(self) -> str:
        """As Runtime has it."""
        return self._board.versions().text

    def close(self) -> None:
        """As Runtime has it; nothing of ours is left on the board."""
        self._board.close()


def check_target(options: RuntimeOptions, config: Config, vendor_file: Path | None) -> None:
    """Raise ConfigError for a target or core mask that cannot be, before any board is asked."""
    if options.target is None:
        return
    chip = find_target(options.target).name
    if vendor_file is None and chip != config.target_platform:
        raise ConfigError(
            f"the model is for {config.target_platform}, not for {chip}",
            where="target",
            hint="see config(target_platform)",
        )
    board_mask(options.core_mask, chip)


def runtime_for(session: Session, options: RuntimeOptions, vendor_file: Path | None) -> Runtime:
    """What init_runtime asks for; `vendor_file` is what load_rknn was given where that was no package of ours."""
    if options.target is None:
        if vendor_file is not None:
            raise OrderError(
                "is the vendor's compiled model, which runs only on a board",
                where=str(vendor_file),
                hint="init_runtime(target=...) names the board's chip",
            )
        cores = cores_of(options.core_mask, session.config.target_platform)
        if options.device_id is not None:
            LOG.warning("init_runtime: device_id is ignored without a target")
        if options.async_mode:
            LOG.warning("init_runtime: async_mode has no effect on the simulator")
        return SimulatorRuntime(session, options.perf_debug, cores)
    board = session.on_board(
        options.device_id,
        target=options.target,
        perf_debug=options.perf_debug,
        eval_mem=options.eval_mem,
        async_mode=options.async_mode,
        core_mask=options.core_mask,
        path=vendor_file,
    )
    LOG.info("init_runtime: runs %s", where_text(board.where))
    for note in board.where.notes:
        LOG.warning("init_runtime: %s", note)
    return BoardRuntime(board, options)


def boards_listed() -> tuple[tuple[list[str], list[str]], str]:
    """What list_devices returns, and what it prints (guide 3.5.14). Warns of what cannot be used, and why."""
    from engine.devices.discovery import list_boards, toolkit_listing

    listing = list_boards()
    text, adb, ntb = toolkit_listing(listing)
    for board in listing.boards:
        if board.transport in ("adb", "ntb") and board.note:
            LOG.warning("list_devices: %s is %s: %s", board.id, board.state, board.note)
    for fault in listing.faults:
        LOG.warning("list_devices: %s", fault)
    return (adb, ntb), text


def log_accuracy(report: AccuracyReport, output_dir: str) -> None:
    """What an accuracy analysis found, and where it is."""
    for warning in report.warnings:
        LOG.warning("accuracy_analysis: %s", warning)
    for name, pair in report.outputs.items():
        LOG.info("accuracy_analysis: output %s cosine %.5f euclidean %.5f", name, pair.cosine, pair.euclidean)
    if report.board is not None:
        LOG.info("accuracy_analysis: ran %s", where_text(report.board))
    for name, pair in report.board_outputs.items():
        LOG.info("accuracy_analysis: board's %s cosine %.5f euclidean %.5f", name, pair.cosine, pair.euclidean)
    LOG.info("accuracy_analysis: wrote %s", Path(output_dir) / "error_analysis.txt")


def _sizes(weight: int, internal: int, total: int) -> dict[str, int]:
    return {
        "total_weight_allocation": weight,
        "total_internal_allocation": internal,
        "total_model_allocation": total,
    }
