"""What `RKNN` knows of boards: their cores by name, and that none can be reached yet."""

from __future__ import annotations

from engine.config import Config
from engine.errors import ConfigError, NotYetError, nearest
from engine.targets import find_target

# One bit a core, as the board's C interface numbers them.
NPU_CORE_AUTO = 0
NPU_CORE_0 = 1
NPU_CORE_1 = 2
NPU_CORE_2 = 4
NPU_CORE_0_1 = NPU_CORE_0 | NPU_CORE_1
NPU_CORE_0_1_2 = NPU_CORE_0 | NPU_CORE_1 | NPU_CORE_2
_CORE_MASKS = {
    NPU_CORE_AUTO: "NPU_CORE_AUTO",
    NPU_CORE_0: "NPU_CORE_0",
    NPU_CORE_1: "NPU_CORE_1",
    NPU_CORE_2: "NPU_CORE_2",
    NPU_CORE_0_1: "NPU_CORE_0_1",
    NPU_CORE_0_1_2: "NPU_CORE_0_1_2",
}


def check_core_mask(core_mask: int) -> None:
    """Raise ConfigError for what is none of the constants above."""
    if core_mask not in _CORE_MASKS:
        raise ConfigError(f"{core_mask!r} is not a choice", where="core_mask", hint=nearest("", _CORE_MASKS.values()))


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
