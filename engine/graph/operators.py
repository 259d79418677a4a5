"""Families of operators that several rules speak of."""

from __future__ import annotations

REORDERINGS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Every value of the input comes out once, seen in another shape or order of axes."""

REPETITIONS = REORDERINGS | {"DepthToSpace", "SpaceToDepth", "Expand", "Tile"}
"""Every value of the input comes out once or more, and nothing else does."""

SELECTIONS = REPETITIONS | {"Split", "Gather", "GatherElements", "GatherND"}
"""What comes out are values of the input, perhaps not all of them to every output."""
