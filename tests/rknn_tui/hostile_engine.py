"""The scripted engine with a model whose layers are named to break what draws, wraps, filters or writes names."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

# Run as a script, where a checkout that is not installed is not on the path.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from engine.host import run
from engine.summaries import ModelSummary
from tests.rknn_tui.scripted_engine import ScriptedSession

NAMES = (
    "plain",
    "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "line\nbreak\r\nand\rreturn\ttab",
    "\u202eright to left\u202c \u2067isolated\u2069",
    "名前の長い層" * 10,
    "e\u0301\u0300\u0302" * 20,
    "zero\u200bwidth\u200d\ufeff",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467 flag \U0001f1e9\U0001f1ea",
    "lone \ud800 surrogate \udcff",
    "x" * 10_000,
    "名" * 10_000,
    "\u0301" * 10_000,
    " ",
    "[bold]markup[/] $variable @click",
    "a: b #c - {d} [e] 'f' \"g\"",
    "nothing\0after",
    "\x07bell\x08back\x7fdelete\x9bcsi",
    "\u2028line separator\u2029paragraph",
    "/".join("deep" for _ in range(2_000)),
    "dir/../..//.",
)


class HostileSession(ScriptedSession):
    """Every method as scripted; the model is the one that the names are of."""

    def load(self, path: str, *arguments: Any, **named: Any) -> ModelSummary:
        summary = super().load(path, *arguments, **named)
        layers = []
        for index, name in enumerate(NAMES):
            before = (NAMES[index - 1],) if index else ()
            one = dataclasses.replace(
                summary.layers[index % len(summary.layers)],
                index=index,
                name=name,
                op=name[:40] if index % 3 == 1 else "Conv",
                inputs=before,
                reads=before,
                outputs=(name,),
                sources=(name,),
            )
            layers.append(one)
        # In the other kind of model one layer refuses every wish.
        self.graph = True
        self.model = dataclasses.replace(summary, layers=tuple(layers), notes=(NAMES[1], NAMES[9]))
        return self.summary()


if __name__ == "__main__":
    run(HostileSession)
