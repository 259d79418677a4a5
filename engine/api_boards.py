"""What `RKNN` knows of boards: their NPU cores by name, and that none can be reached yet."""

from __future__ import annotations

from engine.config import Config
from engine.cost.figures import FIGURES
from engine.errors import ConfigError, NotYetError, nearest
from engine.targets import find_target
from engine.text_tables import counted

# One bit a core, as the board's C interface numbers them.
NPU_CORE_AUTO = 0
NPU_CORE_0 = 1
NPU_CORE_1 = 2
NPU_CORE_2 = 4
NPU_CORE_0_1 = NPU_CORE_0 | NPU_CORE_1
NPU_CORE_0_1_2 = NPU_CORE_0 | NPU_CORE_1 | NPU_CORE_2
NPU_CORE_ALL = 0xFFFF
_CORE_MASKS = {
    NPU_CORE_AUTO: "NPU_CORE_AUTO",
    NPU_CORE_0: "NPU_CORE_0",
    NPU_CORE_1: "NPU_CORE_1",
    NPU_CORE_2: "NPU_CORE_2",
    NPU_CORE_0_1: "NPU_CORE_0_1",
    NPU_CORE_0_1_2: "NPU_CORE_0_1_2",
    NPU_CORE_ALL: "NPU_CORE_ALL",
}


def cores_of(core_mask: int, target: str) -> int:
    """How many cores of `target` the constants above mean; NPU_CORE_AUTO is one that is free.

    Raises ConfigError for what is none of them, and for cores that the target does not have.
    """
    name = _CORE_MASKS.get(core_mask) if isinstance(core_mask, int) else None
    if name is None:
        raise ConfigError(f"{core_mask!r} is not a choice", where="core_mask", hint=nearest("", _CORE_MASKS.values()))
    there = int(FIGURES[target].cores.value)
    if core_mask in (NPU_CORE_AUTO, NPU_CORE_ALL):
        return there if core_mask else 1
    if core_mask.bit_length() > there:
        raise ConfigError(
            f"{target} has {counted(there, 'NPU core')}, so {name} is not a choice",
            where="core_mask",
            hint="NPU_CORE_AUTO goes with every target",
        )
    return core_mask.bit_count()


def refuse_board(target: str | None, config: Config) -> None:
    """Raise where `target` names a board: none can be reached, and the model may be for another."""
    if target is None:
        return
    chip = find_target(target).name
    if chip != config.target_platform:
        raise ConfigError(
            f"the model is for {config.target_platform}, not for {chip}",
            where="target",
            hint="see config(target_platform)",
        )
    raise NotYetError(
        "boards are not supported by this version", where=f"target={chip}", hint="target=None runs the simulator"
    )
