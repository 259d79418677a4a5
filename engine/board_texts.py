"""Readings of boards as short texts, for the command line and the app alike."""

from __future__ import annotations

from engine.boards import BoardFacts


def megabytes(size: int | None) -> str:
    """A size in whole MB (2**20 bytes), `-` where it is not known."""
    return "-" if size is None else f"{size >> 20:,}"


def told(facts: BoardFacts | None) -> list[tuple[str, str]]:
    """All that a board told, as names and texts; '' for what it did not tell. What changes by itself comes last, in
    texts of the same length."""
    if facts is None:
        return []
    memory, clock = megabytes(facts.free_memory), facts.npu_hz
    if facts.total_memory is not None:
        memory = f"{memory:>7} of {megabytes(facts.total_memory)}"
    return [
        ("board", facts.board),
        ("chip", facts.chip),
        ("system", facts.system),
        ("processor", facts.machine),
        ("runtime", " ".join(part for part in (facts.runtime, facts.library) if part)),
        ("NPU driver", facts.driver),
        ("Python", " ".join(part for part in (facts.python, facts.interpreter) if part)),
        ("onnxruntime", facts.onnxruntime),
        ("temporary files", facts.folder),
        ("free there", "" if facts.free_disk is None else f"{megabytes(facts.free_disk):>7} MB"),
        ("free memory", "" if facts.free_memory is None else f"{memory} MB"),
        ("temperature", "" if facts.temperature is None else f"{facts.temperature:5.1f} °C"),
        ("NPU clock", "" if clock is None else f"{clock / 1e6:4.0f} MHz"),
        ("NPU load", load_text(facts.npu_load) if facts.npu_load else ""),
    ]


def load_text(load: tuple[int, ...]) -> str:
    """`  0  12   0 %`: the load of each core, each with room for 100."""
    return f"{' '.join(f'{core:>3}' for core in load)} %" if load else "-"
