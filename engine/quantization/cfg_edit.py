"""Changes of a cfg's text that leave a person's comments, order, quotes and blank lines as they are."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import QuantizationError, nearest
from engine.quantization.cfg_document import Document, comment_at, in_brackets, mapping_in_brackets
from engine.quantization.cfg_text import Entry, written_key, written_number
from engine.quantization.edits import Range
from engine.quantization.table import PARAMETERS, WISHES, number_of, section, wish_of

_INDENT = "    "


def with_wishes(
    text: str,
    wishes: Mapping[str, str],
    *,
    comments: Mapping[str, str] | None = None,
    heading: str = "",
    where: str = "cfg",
) -> str:
    """The cfg with these wishes (tensor -> precision) in custom_quantize_layers and nothing else changed.

    A line whose precision differs is changed in place, a line that is wished no longer is removed, and new ones are
    appended in the order of `wishes`. `comments` (tensor -> text) and `heading` are written behind the lines of the
    tensors and behind the section's key, unless those have a comment already or are in brackets.

    Raises QuantizationError for a text that is no cfg, or is laid out as no cfg is.
    """
    document = Document(text, where)
    entry = document.top.get(WISHES)
    comments = comments or {}
    if entry is None:
        _add_section(document, wishes, comments, heading)
    elif entry.alias or (entry.empty and document.brackets):
        document.replace(entry, mapping_in_brackets(wishes))
    elif entry.empty or (entry.content == {} and _opens_up(document, entry)):
        _open_up(document, entry, wishes, comments, heading)
    elif entry.brackets:
        _edit_brackets(document, entry, wishes)
    else:
        _edit_lines(document, entry, wishes, comments, heading)
    return document.edited(wishes, {})


def with_ranges(text: str, ranges: Mapping[str, Range], *, where: str = "cfg") -> str:
    """The cfg with these smallest and largest values (row -> min, max) and nothing else changed.

    A number that rows share by an alias is written out where it stays as it was. Raises QuantizationError for a text
    that is no cfg, a row that it does not have, or one that is laid out as in no cfg.
    """
    document = Document(text, where)
    rows = section(document.top, PARAMETERS)
    numbers: dict[tuple[str, str], str] = {}
    for name, ends in ranges.items():
        row = rows.get(name)
        if row is None or not isinstance(row.content, dict):
            raise QuantizationError(f"has no row {name!r}", where=where, hint=nearest(name, rows))
        old = row.content
        new = {
            key: written_number(number)
            for key, number in zip(("min", "max"), ends, strict=True)
            if number_of(name, key, old.get(key)) != number
        }
        numbers.update({(name, key): number for key, number in new.items()})
        if row.alias and new:
            fields = {key: in_brackets(field, 1) for key, field in old.items()}
            document.replace(row, mapping_in_brackets({**fields, **{key: f"[{new[key]}]" for key in new}}))
        elif new:
            document.touch(row)
            for key, number in new.items():
                _set_number(document, row, key, number)
    if numbers:
        document.touch(document.top[PARAMETERS])
    return document.edited(None, numbers)


def _set_number(document: Document, row: Entry, key: str, number: str) -> None:
    """Put `number` where the row has its min or max."""
    assert isinstance(row.content, dict)
    field = row.content.get(key)
    if field is None:
        if row.brackets:
            more = ", " if row.content else ""
            document.insert(document.after_bracket(row), f"{key}: [{number}]{more}")
        else:
            first = next(iter(row.content.values())).key
            assert first is not None
            document.insert(first.start, f"{key}: [{number}]{document.line_break}{' ' * (first.column - 1)}")
    elif isinstance(field.content, list) and field.content and not field.alias:
        document.touch(field)
        document.replace(field.content[0], number)
    else:
        document.replace(field, f"[{number}]" if isinstance(field.content, list) else number)


def _add_section(document: Document, wishes: Mapping[str, str], comments: Mapping[str, str], heading: str) -> None:
    if not wishes:
        return
    if document.brackets:
        more = ", " if document.top else ""
        document.insert(document.after_bracket(document.root), f"{WISHES}: {mapping_in_brackets(wishes)}{more}")
        return
    first = next(iter(document.top.values())).key
    assert first is not None
    header = f"{document.indent}{WISHES}:"
    lines = [header + (comment_at(len(header), heading) if heading else "")]
    lines += _lines(wishes, document.indent + _INDENT, comments)
    document.insert(first.start - first.column + 1, "".join(line + document.line_break for line in lines))


def _opens_up(document: Document, entry: Entry) -> bool:
    """Whether the empty brackets stand alone behind their key, so that lines can take their place."""
    assert entry.key is not None
    content = document.text[document.after_bracket(entry) : entry.place.end - 1]
    return not document.brackets and entry.place.line == entry.key.line and not content.strip(" ")


def _open_up(
    document: Document, entry: Entry, wishes: Mapping[str, str], comments: Mapping[str, str], heading: str
) -> None:
    """Put lines in the place of nothing."""
    start, end = entry.place.start, entry.place.end
    width = entry.place.column - 1 + end - start
    if wishes:
        start -= len(document.text[:start]) - len(document.text[:start].rstrip(" "))
        width -= end - start
        document.touch(entry)
        document.remove(start, end)
    document.comment(end, width, heading)
    document.add_lines(end, _lines(wishes, document.indent + _INDENT, comments))


def _edit_lines(
    document: Document, entry: Entry, wishes: Mapping[str, str], comments: Mapping[str, str], heading: str
) -> None:
    """Change a section with one line a wish."""
    assert entry.key is not None
    old = section(document.top, WISHES)
    for name, member in old.items():
        if name not in wishes:
            document.remove_lines(member)
            continue
        changed = wish_of(name, member) != wishes[name]
        if changed:
            document.replace(member, wishes[name])
        length = len(wishes[name]) if changed else member.place.end - member.place.start
        document.comment(member.place.end, member.place.column - 1 + length, comments.get(name, ""))
    behind_colon = document.text.index(":", entry.key.end) + 1
    width = entry.key.column - 1 + behind_colon - entry.key.start
    if not wishes:
        document.touch(entry)
        document.insert(behind_colon, " {}")
        width += len(" {}")
    document.comment(behind_colon, width, heading)
    *_, last = old.values()
    assert last.key is not None
    indent = " " * (last.key.column - 1 - (last.key.start - document.start(last)))
    added = {name: wishes[name] for name in wishes if name not in old}
    document.add_lines(last.place.end, _lines(added, indent, comments), line_stays=list(old)[-1] in wishes)


def _edit_brackets(document: Document, entry: Entry, wishes: Mapping[str, str]) -> None:
    """Change a section in brackets."""
    old = section(document.top, WISHES)
    members = list(old.values())
    ends = [*(document.start(member) for member in members), entry.place.end - 1][1:]
    commas = [document.comma(member.place.end, end) for member, end in zip(members, ends, strict=False)]
    kept = [index for index, name in enumerate(old) if name in wishes]
    for index, (name, member) in enumerate(old.items()):
        comma = commas[index]
        if index not in kept:
            document.touch(member)
            document.remove(document.start(member), member.place.end)
        elif wish_of(name, member) != wishes[name]:
            document.replace(member, wishes[name])
        # With what follows the last that is kept goes the comma behind it.
        if comma is not None and (index not in kept or (index == kept[-1] and index < len(old) - 1)):
            document.remove(*comma)
    added = [f"{written_key(name, '', brackets=True)} {wishes[name]}" for name in wishes if name not in old]
    if added and kept:
        document.insert(members[kept[-1]].place.end, "".join(f", {text}" for text in added))
    elif added:
        document.insert(document.after_bracket(entry), ", ".join(added))


def _lines(wishes: Mapping[str, str], indent: str, comments: Mapping[str, str]) -> list[str]:
    found = []
    for name, precision in wishes.items():
        line = f"{written_key(name, indent)} {precision}"
        if comments.get(name):
            line += comment_at(len(line.rpartition("\n")[2]), comments[name])
        found.append(line)
    return found
