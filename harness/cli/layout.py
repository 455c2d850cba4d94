"""Layout of text and tables in lines of a terminal: broken between words only, so that no word or figure is ever cut.

Without a width, as in a pipe or file, no line is broken. A word that is longer than a line stays whole on a line of its
own, so that a path or command can be copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

# Plain strings are rich's markup, as for `Console.print`; a text of others is escaped, or a `Text`.
Cell = str | Text

_GAP = 2  # blanks between two columns
_INDENT = 2


@dataclass(frozen=True)
class Column:
    """A column of a table; a column of figures is aligned to the right, and its cells are never broken into lines."""

    name: str
    is_figure: bool = False


def columns(texts: Sequence[str], figures: Sequence[str] = (), more: Sequence[str] = ()) -> list[Column]:
    """Return columns of texts, then of figures, then of more texts."""
    return [*map(Column, texts), *(Column(name, is_figure=True) for name in figures), *map(Column, more)]


def as_text(cell: Cell) -> Text:
    """Return a cell as styled text; codes of emoji in it stay as they are."""
    return Text.from_markup(cell, emoji=False) if isinstance(cell, str) else cell


def wrap(text: Text, width: int | None, hang: int = 0) -> list[Text]:
    """Break text between words into lines.

    Args:
        text: The text; its own line breaks and indentation are kept.
        width: Columns of a line; None breaks nothing.
        hang: Blanks before continuation lines, after the paragraph's own indentation.
    """
    paragraphs = text.split("\n", allow_blank=True)
    return [line for paragraph in paragraphs for line in _wrap_paragraph(paragraph, width, hang)]


def _wrap_paragraph(paragraph: Text, width: int | None, hang: int) -> list[Text]:
    if width is None or paragraph.cell_len <= width:
        return [paragraph]
    indent = len(paragraph.plain) - len(paragraph.plain.lstrip(" "))
    lines, line, is_empty = [], Text(" " * indent), True
    for word in paragraph[indent:].split(" "):
        if not is_empty and line.cell_len + 1 + word.cell_len > width:
            lines.append(line)
            line, is_empty = Text(" " * (indent + hang)), True
        if not is_empty:
            line.append(" ")
        line.append_text(word)
        is_empty = is_empty and not word
    lines.append(line)
    for line in lines:
        line.rstrip()
    return lines


class Layout:
    """The layout of a table, chosen for its rows and a width.

    Columns stand side by side, text columns broken between words where needed. Where that does not fit, the first cell
    of a row gets a line of its own, above the others; where these do not fit either, they follow each other with their
    names.
    """

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], width: int | None) -> None:
        """Choose the layout.

        Args:
            columns: The columns.
            rows: The rows, or rows with the widest cells that are expected.
            width: Columns of the terminal; None for a pipe or file.
        """
        self._columns, self._width = columns, width
        natural, least = _measure(columns, [[as_text(cell) for cell in row] for row in rows])
        self._num_above, self._widths = 0, natural
        if width is None:
            return
        for num_above in (0, 1):
            available = width - _INDENT * num_above - _GAP * (len(columns) - num_above - 1)
            if sum(least[num_above:]) <= available:
                self._num_above, self._widths = num_above, _shrink(natural[num_above:], least[num_above:], available)
                return
        self._num_above, self._widths = 1, []

    def header(self) -> list[Text]:
        """Return the lines of the column names."""
        if not self._widths:
            return []
        names = [Text(column.name, style="bold") for column in self._columns]
        return [*names[: self._num_above], *self._side_by_side(names[self._num_above :], at_bottom=True)]

    def row(self, cells: Sequence[Cell]) -> list[Text]:
        """Return the lines of a row."""
        texts = [as_text(cell) for cell in cells]
        above = wrap(texts[0], self._width, _INDENT) if self._num_above and texts[0] else []
        below = self._side_by_side(texts[self._num_above :]) if self._widths else self._one_by_one(texts[1:])
        return [*above, *below]

    def _side_by_side(self, texts: Sequence[Text], *, at_bottom: bool = False) -> list[Text]:
        parts = [wrap(text, width) for text, width in zip(texts, self._widths, strict=True)]
        if at_bottom:
            height = max(map(len, parts))
            parts = [[*[Text()] * (height - len(lines)), *lines] for lines in parts]
        columns = self._columns[self._num_above :]
        lines = []
        for row in zip_longest(*parts, fillvalue=Text()):
            line = Text(" " * _INDENT * self._num_above)
            for part, column, width in zip(row, columns, self._widths, strict=True):
                blanks = " " * max(0, width - part.cell_len)
                line.append_text(Text.assemble(blanks, part) if column.is_figure else Text.assemble(part, blanks))
                line.append(" " * _GAP)
            line.rstrip()
            lines.append(line)
        return lines

    def _one_by_one(self, texts: Sequence[Text]) -> list[Text]:
        """Return the cells that are not empty, each after its column's name, as many in a line as fit."""
        lines = [Text(" " * _INDENT)]
        for column, text in zip(self._columns[1:], texts, strict=True):
            if not text:
                continue
            part = Text.assemble((f"{column.name} ", "bold"), text, " " * _GAP)
            if lines[-1].plain.strip() and lines[-1].cell_len + part.cell_len - _GAP > (self._width or 0):
                lines.append(Text(" " * _INDENT))
            lines[-1].append_text(part)
        for line in lines:
            line.rstrip()
        return [broken for line in lines for broken in wrap(line, self._width, _INDENT)]


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None) -> list[Text]:
    """Return the lines of a table with its header."""
    layout = Layout(columns, rows, width)
    return [*layout.header(), *(line for row in rows for line in layout.row(row))]


def fact_lines(facts: Sequence[tuple[str, Cell]], width: int | None) -> list[Text]:
    """Return names and values below each other, the values aligned; a value may have several lines."""
    name_width = max((len(name) for name, _ in facts), default=0)
    lines = []
    for name, value in facts:
        for index, paragraph in enumerate(as_text(value).split("\n", allow_blank=True)):
            shown = Text(f"{'' if index else name:{name_width}}", style="bold")
            line = Text.assemble(shown, " " * _GAP, paragraph)
            lines += _hanging(line, width, name_width + _GAP)
    return lines


def _hanging(line: Text, width: int | None, margin: int) -> list[Text]:
    """Break a line whose first `margin` columns hold a name, with the rest aligned after them.

    A word that is too long to be aligned, such as a path, begins a line.
    """
    if width is None or line.cell_len <= width:
        line.rstrip()
        return [line]
    lines, prefix = [], line[:margin]
    for part in wrap(line[margin:], max(1, width - margin)):
        if margin + part.cell_len <= width:
            lines.append(Text.assemble(prefix, part))
        else:
            prefix.rstrip()
            lines += [prefix, part] if prefix else [part]
        prefix = Text(" " * margin)
    return lines


def _measure(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> tuple[list[int], list[int]]:
    """Return each column's width without line breaks, and the least width that its longest word needs."""
    natural, least = [], []
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        whole = max((line.cell_len for cell in cells for line in cell.split("\n", allow_blank=True)), default=0)
        longest_word = max((_longest_word(cell) for cell in cells), default=0)
        natural.append(max(whole, len(column.name)))
        least.append(max(whole if column.is_figure else longest_word, _longest_word(Text(column.name))))
    return natural, least


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split(" ")), default=0)


def _shrink(natural: Sequence[int], least: Sequence[int], available: int) -> list[int]:
    """Take columns away from the widest column that can give some, until all fit."""
    widths = list(natural)
    while sum(widths) > available:
        widest = max((index for index in range(len(widths)) if widths[index] > least[index]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths
