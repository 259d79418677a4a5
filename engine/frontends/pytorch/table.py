"""The table of TorchScript's operators: which function here translates each, and what it becomes in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from engine.frontends.pytorch.values import Refused, Tensor

if TYPE_CHECKING:
    from engine.frontends.pytorch.translation import Translation


class Arguments(dict[str, Any]):
    """A node's inputs by the names of the operator's schema."""

    def tensor(self, name: str) -> Tensor:
        """The tensor `name`. Raises Refused for something else."""
        value = self.get(name)
        if not isinstance(value, Tensor):
            raise Refused(f"its {name} is not a tensor")
        return value

    def optional(self, name: str) -> Tensor | None:
        """The tensor `name`, or None where it is left out."""
        return None if self.get(name) is None else self.tensor(name)

    def tensors(self, name: str) -> list[Tensor]:
        """The list of tensors `name`. Raises Refused for something else."""
        value = self.get(name)
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, Tensor) for item in value):
            raise Refused(f"its {name} are not tensors")
        return list(value)

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, (int, bool)):
            raise Refused(f"its {name} is not a whole number")
        return int(value)

    def number(self, name: str, default: float = 0.0) -> float:
        """A number; a constant tensor of one element counts."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, Tensor) and value.is_constant and value.content.numel() == 1:
            value = value.content.item()
        if not isinstance(value, (int, float)):
            raise Refused(f"its {name} is not a number that is known")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false where it is left out."""
        return bool(self.get(name))

    def integers(self, name: str, count: int = 0) -> list[int]:
        """Whole numbers; one stands for `count` equal ones. Empty where left out."""
        value = self.get(name)
        if value is None:
            return []
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(item, int) for item in values):
            raise Refused(f"its {name} are not whole numbers")
        values = [int(item) for item in values]
        return values * count if len(values) == 1 and count > 1 else values


Handler = Callable[["Translation", Arguments], Any]

AnyHandler = TypeVar("AnyHandler", bound=Handler)

HANDLERS: dict[str, Handler] = {}
BECOMES: dict[str, tuple[str, ...]] = {}
VIEWS: set[str] = set()


def operator(*kinds: str, becomes: str = "", view: bool = False) -> Callable[[AnyHandler], AnyHandler]:
    """Let the function translate the operators `kinds` (of `aten` where they name no other namespace).

    `becomes` names the ONNX operators that may come of it. The results of a `view` share their memory with the first
    argument. The operators that work in place (`relu_`) follow from the others.
    """

    def add(handler: AnyHandler) -> AnyHandler:
        for kind in kinds:
            name = kind if "::" in kind else f"aten::{kind}"
            HANDLERS[name] = handler
            BECOMES[name] = tuple(sorted(becomes.split()))
            if view:
                VIEWS.add(name)
        return handler

    return add


def find(kind: str) -> tuple[Handler | None, bool]:
    """What translates the operator `kind`, and whether its result goes into its first argument."""
    if kind in HANDLERS:
        return HANDLERS[kind], kind.endswith("_") and not kind.endswith("__")
    if kind.endswith("_") and kind[:-1] in HANDLERS:
        return HANDLERS[kind[:-1]], True
    return None, False
