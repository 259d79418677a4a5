"""Readings of boards as short texts, for the command line and the app alike."""

from __future__ import annotations


def megabytes(size: int | None) -> str:
    """A size in whole MB (2**20 bytes), `-` where it is not known."""
    return "-" if size is None else f"{size >> 20:,}"
