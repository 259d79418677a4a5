"""The cores of an NPU by name: what a mask means, and which chip has them."""

from __future__ import annotations

from engine.cost.figures import FIGURES
from engine.errors import ConfigError, nearest
from engine.text_tables import counted

# One bit a core, as the board's C interface numbers them.
NPU_CORE_AUTO = 0
NPU_CORE_0 = 1
NPU_CORE_1 = 2
NPU_CORE_2 = 4
NPU_CORE_0_1 = NPU_CORE_0 | NPU_CORE_1
NPU_CORE_0_1_2 = NPU_CORE_0 | NPU_CORE_1 | NPU_CORE_2
NPU_CORE_ALL = 0xFFFF

CORE_MASKS = {
    "auto": NPU_CORE_AUTO,
    "0": NPU_CORE_0,
    "1": NPU_CORE_1,
    "2": NPU_CORE_2,
    "0_1": NPU_CORE_0_1,
    "0_1_2": NPU_CORE_0_1_2,
    "all": NPU_CORE_ALL,
}
"""The masks by the last part of their names."""


def mask_name(core_mask: int) -> str:
    """`NPU_CORE_0_1` for 3. Raises ConfigError for what is no mask."""
    for name, mask in CORE_MASKS.items():
        if isinstance(core_mask, int) and mask == core_mask:
            return f"NPU_CORE_{name.upper()}"
    known = [f"NPU_CORE_{name.upper()}" for name in CORE_MASKS]
    raise ConfigError(f"{core_mask!r} is not a choice", where="core_mask", hint=nearest("", known))


def cores_of(core_mask: int, target: str) -> int:
    """How many cores of `target` the constants above mean; NPU_CORE_AUTO is one that is free.

    Raises ConfigError for what is none of them, and for cores that the target does not have.
    """
    name = mask_name(core_mask)
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


def board_mask(core_mask: int, chip: str) -> int:
    """The mask that the runtime on a board is given. Raises ConfigError as `cores_of` does.

    A chip with one core knows no masks at all: there only NPU_CORE_AUTO goes. All cores are given bit by bit, since
    runtimes before 2.0 do not know NPU_CORE_ALL.
    """
    cores_of(core_mask, chip)
    there = int(FIGURES[chip].cores.value)
    if core_mask != NPU_CORE_AUTO and there == 1:
        raise ConfigError(
            f"{chip} has 1 NPU core, and its runtime takes no {mask_name(core_mask)}",
            where="core_mask",
            hint="NPU_CORE_AUTO goes with every target",
        )
    return (1 << there) - 1 if core_mask == NPU_CORE_ALL else core_mask
