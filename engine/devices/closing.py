"""What is let go of at the end of a `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

_Held = TypeVar("_Held", bound="Closing")


class Closing(ABC):
    """Something that `close` ends, which a `with` block calls."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; may be called twice, and never raises."""

    def __enter__(self: _Held) -> _Held:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
