"""What a person did to a built model, held while the engine, or the app, is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from engine.history import EditState


@dataclasses.dataclass(frozen=True)
class LeftText:
    """The cfg's text as it was left.

    `path` is its file, '' for none yet. `expresses` are the edits that the text asked for when it was last without
    faults, None where that is not known. `typed`: it was changed by hand, and is not saved. `saved` and `checksum` are
    what the file holds and its SHA-256, None where they are not known.
    """

    text: str
    path: str = ""
    expresses: EditState | None = None
    typed: bool = True
    saved: str | None = None
    checksum: str | None = None


@dataclasses.dataclass(frozen=True)
class Kept:
    """The edits in force, those that were saved, and the cfg's text where it is more than what the engine writes.

    `makers` tells which layer makes a tensor, as far as that is known: edits are counted by layers.
    """

    state: EditState
    saved: EditState = dataclasses.field(default_factory=EditState)
    text: LeftText | None = None
    makers: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def edits(self) -> int:
        """How many layers are otherwise than built."""
        return self._layers(EditState())

    @property
    def unsaved(self) -> int:
        """How many layers are otherwise than saved; one where only the text is."""
        return self._layers(self.saved) or int(self.text is not None and self.text.typed)

    def _layers(self, other: EditState) -> int:
        return len({self.makers.get(tensor, tensor) for tensor in self.state.differing(other)})

    def without_biases(self) -> EditState:
        """The edits in force without the biases of a search, which are gone with the engine that found them."""
        return dataclasses.replace(self.state, biases="")
