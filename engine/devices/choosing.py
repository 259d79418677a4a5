"""Decides what of a model runs on a board, and where: the vendor's binary on the NPU, or our graph on the processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from engine.boards import BoardFacts
from engine.errors import DeviceError
from engine.targets import find_target

Place = Literal["npu", "cpu"]

# Builds for one differ from those for the other in the name only, and yet the runtime refuses them.
_TWINS = (frozenset({"rk3566", "rk3568"}), frozenset({"rv1103", "rv1106"}))


@dataclasses.dataclass(frozen=True, eq=False)
class Runnable:
    """What there is of a model that a board could run.

    `where` names the model in messages. `target` is the chip that it was built for, '' where a file does not tell.
    `binaries` give what the vendor's compiler made of it, by chip ('' for a file that does not tell its own). `graph`
    gives it as ONNX that computes what the simulator does; None for a file that is nothing but a binary.
    """

    where: str
    target: str
    binaries: Mapping[str, Callable[[], bytes | Path]]
    graph: Callable[[], bytes] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """What runs: `place` as in engine.boards.BoardRun, the chip ('' where nothing tells), the model as it is sent, and
    what a person should know of the choice."""

    place: Place
    chip: str
    content: Callable[[], bytes | Path]
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What the agent is told that the model is."""
        return "rknn" if self.place == "npu" else "onnx"


def choose(model: Runnable, facts: BoardFacts, device: str, target: str | None = None) -> Choice:
    """What runs on a board of which `facts` are known, before anything was sent to it.

    `target`, where given, is the chip that the caller takes it for. Raises ConfigError for a target that does not
    exist, and DeviceError for a model of another chip and where the board can run nothing of it.
    """
    chip, notes = _chip(facts, device, target), []
    if not chip:
        notes.append("the board does not tell its chip, so that the model's target could not be compared with it")
    wanted = chip or model.target
    binary = model.binaries.get(wanted) or model.binaries.get("")
    if binary is None and model.target and model.target != wanted:
        raise _for_another(model, wanted, device)
    if not facts.interpreter:
        raise _refused("cannot run our agent: it has no Python 3.7 or newer", facts, device, "install python3 there")
    if binary is not None and facts.library:
        return Choice("npu", wanted, binary, tuple(notes))
    lacking = "the board has no librknnrt.so" if binary is not None else f"it has no binary for {wanted or 'the chip'}"
    if model.graph is not None and facts.onnxruntime:
        notes.append(f"on the board's processor, by ONNX Runtime {facts.onnxruntime}, not on the NPU: {lacking}")
        return Choice("cpu", wanted, model.graph, tuple(notes))
    if model.graph is None:
        raise _refused(
            "has no librknnrt.so, without which nothing runs a .rknn of the vendor's compiler",
            facts,
            device,
            "install the vendor's runtime on the board",
        )
    first = (
        "the NPU needs the vendor's librknnrt.so on the board"
        if binary is not None
        else f"the NPU needs a binary for {wanted or 'the chip'}, which `rknn-tui compile` makes"
    )
    raise _refused(
        f"cannot run the model: {lacking}, and the board's Python has no onnxruntime",
        facts,
        device,
        f"{first}; the board's processor needs onnxruntime in {facts.interpreter}, which "
        f"`{facts.interpreter} -m pip install onnxruntime` brings",
    )


def _chip(facts: BoardFacts, device: str, target: str | None) -> str:
    """The board's chip, by what it tells or else by what the caller says."""
    if target is None:
        return facts.chip
    name = find_target(target).name
    if facts.chip and facts.chip != name:
        raise DeviceError(
            f"the board has a chip {facts.chip}, not {name}",
            where=device,
            hint=f"target={facts.chip!r}, or another board",
        )
    return name


def _for_another(model: Runnable, chip: str, device: str) -> DeviceError:
    known = sorted(name for name in {model.target, *model.binaries} if name)
    twins = (
        "; builds for the two differ in nothing but the name, but the runtime compares it"
        if frozenset({model.target, chip}) in _TWINS
        else ""
    )
    how = f"compile the source model for {chip}" if model.graph is None else f"build the model for {chip}"
    return DeviceError(
        f"{model.where} is for {' and '.join(known)}, not for the board's {chip}{twins}", where=device, hint=how
    )


def _refused(what: str, facts: BoardFacts, device: str, hint: str) -> DeviceError:
    told = "; ".join(facts.problems)
    return DeviceError(f"{what} ({told})" if told else what, where=device, hint=hint)
