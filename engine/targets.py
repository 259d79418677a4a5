"""The chips that a model can be built for."""

from __future__ import annotations

import dataclasses

from engine.errors import ConfigError, nearest


@dataclasses.dataclass(frozen=True)
class Target:
    """A chip. `precisions` are what its NPU can run a layer in (guide 3.5.2; RV1103 and RV1106 have no float16)."""

    name: str
    precisions: tuple[str, ...]


_FULL = ("int8", "int16", "float16")

TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("rk3562", _FULL),
        Target("rk3566", _FULL),
        Target("rk3568", _FULL),
        Target("rk3576", _FULL),
        Target("rk3588", _FULL),
        Target("rv1103", ("int8", "int16")),
        Target("rv1106", ("int8", "int16")),
    )
}


def find_target(name: str) -> Target:
    """The target called `name`, in any case; rk3588s is rk3588. Raises ConfigError."""
    key = str(name).strip().lower()
    key = {"rk3588s": "rk3588"}.get(key, key)
    if key not in TARGETS:
        raise ConfigError(f"unknown target platform {name!r}", where="target_platform", hint=nearest(key, TARGETS))
    return TARGETS[key]
