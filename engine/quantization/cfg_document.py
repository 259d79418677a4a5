"""A cfg's text while it is edited: changes by place, aliases written out, and proof of what the result says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from engine.errors import QuantizationError
from engine.quantization.cfg_text import BYTE_ORDER_MARK, Entry, quoted, read_yaml, written_comment, written_key
from engine.quantization.table import KEYS, LARGEST_CFG, PARAMETERS, WISHES, section

# Where the toolkit begins the comments of a proposal.
_COMMENT_COLUMN = 100
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_COMMENT_LINE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
# Words and numbers that mean the same with and without brackets around them.
_PLAIN = re.compile(r"[\w.+/-]*\w[\w.+/-]*")


class Document:
    """A cfg's text with the changes made to it so far; `root` and `top` tell what it said before.

    `indent` is what stands before the keys of the top level, `brackets` whether that is in brackets. A change that
    alters what an anchor stands for touches it; its aliases are then written out as they were.
    """

    def __init__(self, text: str, where: str) -> None:
        """Raises QuantizationError for what is no YAML, or no mapping."""
        if len(text) > LARGEST_CFG:
            raise QuantizationError("is too large for a cfg", where=where)
        self.where = where
        self._mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
        self.text = text.removeprefix(BYTE_ORDER_MARK)
        self.root = read_yaml(self.text, where)
        if not isinstance(self.root.content, dict):
            raise QuantizationError("holds no mapping", where=self.root.where, hint=f"expected {WISHES}")
        self.top = self.root.content
        self.brackets = self.root.brackets
        self.indent = " " * (self.root.place.column - 1)
        first = _BREAK.search(self.text)
        self.line_break = first.group() if first else "\n"
        self._edits: list[tuple[int, int, str]] = []
        self._touched: set[int] = set()

    def insert(self, position: int, text: str) -> None:
        """Put `text` at `position`; what is put at the same position later comes behind it."""
        self._edits.append((position, position, text))

    def remove(self, start: int, end: int) -> None:
        """Take out a part of the text."""
        self._edits.append((start, end, ""))

    def replace(self, entry: Entry, text: str) -> None:
        """Put `text` where a scalar, an alias or something in brackets stands."""
        self.touch(entry)
        # A value that is missing may stand right behind its colon.
        space = " " if self.text[entry.place.start - 1 : entry.place.start] == ":" else ""
        self._edits.append((entry.place.start, entry.place.end, space + text))

    def touch(self, entry: Entry | None) -> None:
        """Say that the entry changes, so that what repeats it must not."""
        if entry is not None and entry.anchor:
            self._touched.add(entry.anchor)

    def comment(self, position: int, width: int, text: str) -> None:
        """Put a comment at the end of the line that holds `position`, unless it has one or `text` is empty.

        width: that of the line up to there, as it will be.
        """
        end, _ = self._line_end(position)
        rest = self.text[position:end]
        if text and "#" not in rest:
            self.insert(end, comment_at(width + len(rest), text))

    def add_lines(self, position: int, lines: list[str], *, line_stays: bool = True) -> None:
        """Put lines behind the one that holds `position`."""
        end, after = self._line_end(position)
        if lines and end == after and line_stays:
            self.insert(end, self.line_break)
        self.insert(after, "".join(line + self.line_break for line in lines))

    def remove_lines(self, member: Entry) -> None:
        """Take out an entry of a mapping without brackets; lines of comment between key and value stay."""
        assert member.key is not None
        self.touch(member)
        between = _COMMENT_LINE.findall(self.text[member.key.end : member.place.start])
        start, (_, end) = member.key.start - member.key.column + 1, self._line_end(member.place.end)
        self._edits.append((start, end, "".join(line + self.line_break for line in between)))

    def start(self, member: Entry) -> int:
        """Where an entry of a mapping begins: at its key, or at the question mark before a long one."""
        assert member.key is not None
        before = self.text[member.key.start - member.key.column + 1 : member.key.start]
        mark = re.search(r"(?:^|[\s{,])(\?) *\Z", before)
        return member.key.start - len(before) + mark.start(1) if mark else member.key.start

    def after_bracket(self, entry: Entry) -> int:
        """Where the content of a mapping in brackets begins."""
        return self.text.index("{", entry.place.start) + 1

    def comma(self, start: int, end: int) -> tuple[int, int] | None:
        """Where the comma is in the gap between two entries in brackets, with the blanks behind it if no comment is."""
        for match in re.finditer(r"#.*|, *(?![ #])|,", self.text[start:end]):
            if match.group()[0] == ",":
                return start + match.start(), start + match.end()
        return None

    def edited(self, wishes: Mapping[str, str] | None, numbers: Mapping[tuple[str, str], str]) -> str:
        """The text with all changes, proved to differ in `wishes` (where given) and `numbers` (row and key) only.

        Raises QuantizationError where that fails.
        """
        self._write_out_aliases()
        pieces, position = [], 0
        for start, end, new in sorted(self._edits, key=lambda edit: edit[:2]):
            pieces += [self.text[position:start], new]
            position = end
        result = "".join([*pieces, self.text[position:]])
        old_wishes, old_numbers = _told(self.root)
        try:
            told = _told(read_yaml(result, self.where))
        except QuantizationError:
            told = None
        if told != (old_wishes if wishes is None else dict(wishes), {**old_numbers, **numbers}):
            raise QuantizationError(
                "is laid out in a way that cannot be edited here",
                where=self.where,
                hint=f"write {WISHES} with one NAME: precision a line",
            )
        return self._mark + result

    def _write_out_aliases(self) -> None:
        if not self._touched:
            return
        changed = [(start, end) for start, end, _ in self._edits if end > start]
        size = 0
        for alias in _aliases(self.root):
            inside = any(start <= alias.place.start < end for start, end in changed)
            if alias.alias in self._touched and not inside:
                text = in_brackets(alias)
                size += len(text)
                if size > LARGEST_CFG:
                    raise QuantizationError("repeats too much by aliases", where=self.where)
                self._edits.append((alias.place.start, alias.place.end, text))

    def _line_end(self, position: int) -> tuple[int, int]:
        """Where the line's break begins and ends; both the text's end on the last line."""
        match = _BREAK.search(self.text, position)
        return match.span() if match else (len(self.text), len(self.text))


def comment_at(width: int, text: str) -> str:
    """A comment for the end of a line that is `width` wide."""
    return " " * max(2, _COMMENT_COLUMN - width) + written_comment(text)


def in_brackets(entry: Entry, depth: int = 2) -> str:
    """A value as text that can stand anywhere: a row, a list of numbers, or a word. Raises QuantizationError."""
    content = entry.content
    if isinstance(content, str):
        plain = entry.plain and (entry.empty or _PLAIN.fullmatch(content))
        return (content or "~") if plain else quoted(content)
    if depth == 0:
        raise QuantizationError("repeats by an alias what no cfg repeats", where=entry.where)
    if isinstance(content, list):
        return "[" + ", ".join(in_brackets(item, 0) for item in content) + "]"
    return mapping_in_brackets({key: in_brackets(value, depth - 1) for key, value in content.items()})


def mapping_in_brackets(items: Mapping[str, str]) -> str:
    """A mapping on one line; the values are written as they are."""
    return "{" + ", ".join(f"{written_key(key, '', brackets=True)} {text}" for key, text in items.items()) + "}"


def _told(root: Entry) -> tuple[Mapping[str, str | None], dict[tuple[str, str], str]]:
    """What a cfg says: its wishes, and the text of each of its rows' values."""
    assert isinstance(root.content, dict)
    wishes = {name: _scalar(entry) for name, entry in section(root.content, WISHES).items()}
    told: dict[tuple[str, str], str] = {}
    for name, row in section(root.content, PARAMETERS).items():
        fields = row.content if isinstance(row.content, dict) else {}
        told.update({(name, key): text for key in KEYS if (text := _scalar(fields.get(key))) is not None})
    return wishes, told


def _scalar(entry: Entry | None) -> str | None:
    """The text of an entry, or of the only entry in a list."""
    if entry is not None and isinstance(entry.content, list) and len(entry.content) == 1:
        entry = entry.content[0]
    return entry.content if entry is not None and isinstance(entry.content, str) else None


def _aliases(root: Entry) -> Iterator[Entry]:
    """Every alias, where it stands."""
    waiting = [root]
    while waiting:
        entry = waiting.pop()
        if entry.alias:
            yield entry
        elif isinstance(entry.content, list):
            waiting += entry.content
        elif isinstance(entry.content, dict):
            waiting += entry.content.values()
