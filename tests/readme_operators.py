"""The README's lists of operators, as the front ends tell them; `python -m tests.readme_operators` renews them."""

from __future__ import annotations

from pathlib import Path

from engine.cli_operators import FRONT_ENDS, operators
from engine.files.writing import replacing

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- operators -->", "<!-- /operators -->"


def block() -> str:
    """What stands between the marks: for each framework the operators that are read.

    Those of ONNX are whatever the installed onnx and ONNX Runtime have.
    """
    lines = [BEGIN]
    for framework in list(FRONT_ENDS)[1:]:
        found = [operator.operator for operator in operators(framework)]
        lines += [
            "<details>",
            f"<summary>{framework}: {len(found)} operators</summary>",
            "",
            ", ".join(f"`{name}`" for name in found),
            "",
            "</details>",
        ]
    return "\n".join([*lines, END])


def renewed(text: str) -> str:
    """The README with its lists as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + block() + after


if __name__ == "__main__":
    text = renewed(README.read_text())
    with replacing(README) as file:
        file.write(text.encode())
