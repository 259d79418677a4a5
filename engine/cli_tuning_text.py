"""What recipes, error sources, searches and lint find, as text for a person to read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from engine.summaries import Candidate, Finding, HybridSummary, Quality, RecipeScore, SourceMap, TuneReport
from engine.text_tables import counted, printable, shortened, table

_WIDTH = 80
_NAME_CELLS = 48
_FEWEST_CELLS = 12


def recipes_text(scores: Sequence[RecipeScore]) -> str:
    """What `auto` chose from, the winner first, and by how much it leads."""
    rows = [(one.recipe, *_figures(one.cosine, one.lowest, one.noise)) for one in scores]
    lines = [table(("recipe", "cosine", "lowest", "SNR dB"), rows, numbers=(1, 2, 3))]
    best, others = scores[0], scores[1:]
    rivals = [("the next", one) for one in others[:1]] + [("normal", one) for one in others if one.recipe == "minmax"]
    leads = [f"{_decibels(best.noise) - _decibels(one.noise):+.1f} dB against {what}" for what, one in rivals]
    if leads:
        lines.append(f"taken: {best.recipe}; on samples apart, {', '.join(leads)}")
    return "\n".join(lines)


def sources_text(sources: SourceMap, most: int | None = None) -> str:
    """For each output, or part of a joined output, the roundings that cost it most, each alone in the float model."""
    shown = most or (10 if len(sources.parts) == 1 else 3)
    samples = counted(sources.samples, "sample")
    lines = [f"where the error comes from: each rounding alone in the float model, {samples}"]
    for place, (name, part) in enumerate(zip(sources.parts, sources.total.parts, strict=True)):
        total = sum(source.noise[place] for source in sources.sources)
        lines.append(
            f"{shortened(printable(name), _NAME_CELLS)}: cosine {part.cosine:.5f}, SNR {_decibels(part.noise):.1f} dB"
        )
        ordered = sorted(sources.sources, key=lambda source: -source.noise[place])
        for source in ordered[:shown]:
            share = source.noise[place] / total if total > 0 else 0.0
            if share > 0:
                what = "weights of" if source.kind == "weights" else "rounding"
                lines.append(f"  {share:6.1%}  {what} {source.op} {shortened(printable(source.name), _NAME_CELLS)}")
    return "\n".join(lines)


def tune_text(report: TuneReport, taken: int, width: int | None = None) -> str:
    """The candidates, cheapest first and numbered from 1, the one taken (-1: none) marked, and its cfg lines."""
    rows = [("0", "0", "0.0", _milliseconds(report.time_us), *_quality(report.base))]
    for number, one in enumerate(report.candidates, start=1):
        mark = "*" if number - 1 == taken else ""
        rows.append(
            (
                f"{mark}{number}",
                str(len(one.layers)),
                f"{100 * one.cost:.1f}",
                _milliseconds(one.time_us),
                *_quality(one.quality),
            )
        )
    headers = ("#", "layers", "cost %", "ms", "cosine", "lowest", "SNR dB")
    figures = table(headers, rows, numbers=range(len(headers))).splitlines()
    left = max((width or _WIDTH) - len(figures[0]) - 2, _FEWEST_CELLS)
    changed = ["changed", "-" * len("changed"), "nothing", *(_named(one, left) for one in report.candidates)]
    lines = [
        *(f"{line}  {names}" for line, names in zip(figures, changed, strict=True)),
        f"cost, ms: estimated; figures: of the worst output on {counted(report.samples, 'sample')}",
    ]
    if report.reached and report.chosen < 0:
        lines.append("good as it is: nothing needs repair")
    elif not report.complete:
        lines.append(f"cancelled: {'this is the best so far' if report.candidates else 'nothing was found so far'}")
    elif not report.candidates:
        lines.append("nothing better was found")
    elif not report.reached:
        lines.append("the wish was not fulfilled")
    if taken >= 0 and report.candidates[taken].wishes:
        lines += [f"custom_quantize_layers of {taken + 1}:", wishes_text(report.candidates[taken].wishes)]
    return "\n".join(lines)


def hybrid_text(summary: HybridSummary, program: str) -> str:
    """The three files, what was proposed, and how to go on."""
    lines = [
        f"{printable(summary.model)}: the graph",
        f"{printable(summary.data)}: what calibration made of it",
        f"{printable(summary.cfg)}: to edit",
    ]
    report = summary.proposal
    if report is not None:
        best = report.candidates[report.chosen] if report.chosen >= 0 else None
        after = report.base if best is None else best.quality
        what = counted(len(best.layers), "layer") if best is not None and best.layers else "no layer"
        cost = f"; estimated {best.cost:.1%} more time" if best is not None and best.cost else ""
        lines += [
            "",
            f"proposed: {what}{cost}",
            f"cosine {report.base.cosine:.5f} without, {after.cosine:.5f} with it; "
            f"SNR {_decibels(report.base.noise):.1f} and {_decibels(after.noise):.1f} dB",
        ]
        lines += [wishes_text(best.wishes)] if best is not None and best.wishes else []
    lines += [
        "",
        "edit custom_quantize_layers, or a row's min and max, then:",
        f"  {program} build {printable(summary.model)} --cfg {printable(summary.cfg)}",
    ]
    return "\n".join(lines)


def findings_text(findings: Sequence[Finding], width: int = _WIDTH) -> str:
    """A paragraph a finding: what is wrong, what to do, and the lines that do it."""
    paragraphs = []
    for finding in findings:
        text = [
            textwrap.fill(f"{finding.rule}: {printable(finding.message)}", width, break_on_hyphens=False),
            textwrap.fill(printable(finding.remedy), width, initial_indent="  ", subsequent_indent="  "),
        ]
        paragraphs.append("\n".join(text + ([wishes_text(finding.wishes)] if finding.wishes else [])))
    return "\n\n".join(paragraphs) or "nothing found"


def wishes_text(wishes: Mapping[str, str]) -> str:
    """Lines of custom_quantize_layers, as a cfg has them."""
    return "\n".join(f"    {printable(name)}: {precision}" for name, precision in wishes.items())


def _named(candidate: Candidate, cells: int) -> str:
    """The layers that change, as many as fit."""
    names = [printable(name) for name in candidate.layers]
    if not names:
        return "biases only"
    texts = [", ".join(names[:shown]) + f" and {len(names) - shown} more" for shown in range(len(names) - 1, 0, -1)]
    fitting = (text for text in [", ".join(names), *texts] if len(text) <= cells)
    return next(fitting, shortened([", ".join(names), *texts][-1], cells))


def _quality(quality: Quality) -> tuple[str, str, str]:
    return _figures(quality.cosine, quality.lowest, quality.noise)


def _figures(cosine: float, lowest: float, noise: float) -> tuple[str, str, str]:
    return f"{cosine:.5f}", f"{lowest:.5f}", f"{_decibels(noise):.1f}"


def _decibels(noise: float) -> float:
    """The signal-to-noise ratio of a noise-to-signal power ratio."""
    return -10.0 * math.log10(noise) if noise > 0 else math.inf


def _milliseconds(time_us: float) -> str:
    milliseconds = time_us / 1000
    return f"{milliseconds:.{3 if milliseconds < 10 else 1}f}"
