"""Write the report for a terminal: one table a student, in blocks of tasks that fit. No name or number is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from railkd.report import format
from railkd.report.text import export_table
from railkd.runtime.words import counted, visible_all
from railkd.statistics import ALPHA

#: With more arms than this, the table shows the arms that `_select_arms` names.
MOST_ARMS = 12
#: Cells between two columns.
_GAP = 2
#: Behind the number of an arm that beats every other arm of its student.
_BEST = "*"


@dataclass(frozen=True)
class _Column:
    """A column: the lines of its head, and a cell for each row. Cells with a star are bold."""

    head: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """The widest line, in cells of the terminal."""
        return max(map(cell_len, (*self.head, *self.cells)))


def terminal(content: dict[str, Any], width: int | None, *, every_arm: bool = False) -> Iterator[Text]:
    """Yield the lines of the score tables, the sentences and the notes.

    Args:
        content: the dict of `content.content`.
        width: columns of the terminal. A wider table is parted into blocks of tasks. None: no limit, for pipes.
        every_arm: show every arm, also if there are many.

    Yields:
        Lines. A sentence may be wider than the terminal; the caller wraps it between words.
    """
    content = visible_all(content)
    left_out: dict[str, None] = {}
    titles = {("scores", "in"): content["name"], ("scores", "out"): "out of the domain"}
    titles |= {("asked", "in"): "other metrics", ("asked", "out"): "other metrics, out of the domain"}
    for (kind, domain), title in titles.items():
        table = content[kind][domain]
        for student in students_of(table):
            arms = _select_arms(content, content["scores"][domain], student)
            shown = arms if not every_arm else set(_arms(table, student))
            left_out |= dict.fromkeys(arm for arm in _arms(table, student) if arm not in shown)
            yield Text(": ".join(filter(None, (title, student))), style="bold")
            yield from _table(table, student, shown, width)
    if any(cell["best"] for kind in ("scores", "asked") for table in content[kind].values() for cell in _cells(table)):
        yield Text(f"{_BEST} beats every other arm of its student in a paired test at {100 * ALPHA:g} %")
    for one in content["exports"]:
        yield Text(f"what ships: {one['name']}", style="bold")
        yield from _export(one, width)
    for one in content["certificates"]:
        shows = "is no worse" if one["passes"] else "is not shown to be no worse"
        yield Text(f"{one['file']}: {one['model']} {shows} than {one['against']}")
    if left_out:
        yield Text(
            f"{counted(len(left_out), 'arm')} of {len(content['arms'])} left out of one table or more: "
            f"{', '.join(left_out)}. --all shows every arm."
        )
    yield Text()
    for line in content["headline"]:
        yield Text(line["text"] + (f": {line['verdict']}." if line["verdict"] else ""))
    for note in content["notes"]:
        yield Text(f"note: {note}", style="yellow")


def students_of(table: dict[str, Any]) -> list[str]:
    """Return the students with scores; a study without students has one table, that of the teachers.

    Args:
        table: of a domain, as `scores.table` returns it.

    Returns:
        Names of students; [""] for the teachers alone, [] without scores.
    """
    students = [group["student"] for group in table["groups"]]
    return [student for student in students if student] or students


def _arms(table: dict[str, Any], student: str) -> list[str]:
    return [row["arm"] for group in table["groups"] if group["student"] == student for row in group["rows"]]


def _cells(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in table["groups"]:
        for row in group["rows"]:
            yield from filter(None, (*row["cells"], row["average"]))


def _select_arms(content: dict[str, Any], table: dict[str, Any], student: str) -> set[str]:
    """Return the arms to show: all, or of many arms those of the named contrasts, the baseline, the best and worst."""
    arms = _arms(table, student)
    if len(arms) <= MOST_ARMS:
        return set(arms)
    rows = [row for group in table["groups"] if group["student"] == student for row in group["rows"]]
    named = content["contrasts"]["rows"] if content["contrasts"]["named"] else []
    wanted = {content["baseline"], *(row[side] for row in named for side in ("arm", "baseline"))}
    place = next((i for i, column in enumerate(table["columns"]) if column["points"]), None)
    scored = {
        row["arm"]: cell["mean"]
        for row in rows
        if (cell := row["average"] or (row["cells"][place] if place is not None else None))
    }
    if scored:
        wanted |= {max(scored, key=scored.__getitem__), min(scored, key=scored.__getitem__)}
    return wanted & set(arms)


def _table(table: dict[str, Any], student: str, shown: set[str], width: int | None) -> Iterator[Text]:
    """Yield the lines of the table of one student, with its teachers above its arms."""
    groups = {group["student"]: group["rows"] for group in table["groups"]}
    teachers = [row for row in groups.get("", []) if student and teaches(row["arm"], student)]
    rows = [
        *filter(None, [table["constant"]]),
        *teachers,
        *(row for row in groups[student] if not student or row["arm"] in shown),
    ]
    first = _Column(("arm",), tuple(row["arm"] for row in rows))
    columns = []
    if any(row["average"] for row in rows):
        columns.append(_Column(("average",), tuple(_score(row["average"], 1) for row in rows)))
        if any(row["rank"] is not None for row in rows):
            columns.append(_Column(("rank",), tuple(format.number(row["rank"]) for row in rows)))
    for place, column in enumerate(table["columns"]):
        head = (column["task"], *([column["set"]] if column["show_set"] else []), f"({column['metric']})")
        digits = 1 if column["points"] else 3
        columns.append(_Column(head, tuple(_score(row["cells"][place], digits) for row in rows)))
    for block in _blocks(first, columns, width):
        yield from _block(first, block, width)
        yield Text()


def _export(one: dict[str, Any], width: int | None) -> Iterator[Text]:
    """Yield the lines of the table of an export."""
    heads, rows = export_table(one)
    first, *others = zip(*rows, strict=True)
    columns = [_Column(head, tuple(cells)) for head, cells in zip(heads[1:], others, strict=True)]
    for block in _blocks(_Column(heads[0], tuple(first)), columns, width):
        yield from _block(_Column(heads[0], tuple(first)), block, width)
        yield Text()


def teaches(arm: str, student: str) -> bool:
    """Return True if a teacher serves a student.

    Args:
        arm: the teacher, as `study.teacher_arm` names it.
        student: name of the student.
    """
    _, of, students = arm.partition(" of ")
    return not of or student in students.split(", ")


def _score(cell: dict[str, Any] | None, digits: int) -> str:
    if not cell:
        return format.DASH
    return format.spread(cell["mean"], cell["sd"], digits) + (_BEST if cell["best"] else "")


def _blocks(first: _Column, columns: Sequence[_Column], width: int | None) -> Iterator[list[_Column]]:
    """Part the columns into blocks that fit beside the names; a column that is too wide is a block of its own."""
    room = float("inf") if width is None else width - _name_width(first, width)
    block: list[_Column] = []
    used = 0
    for column in columns:
        if block and used + _GAP + column.width > room:
            yield block
            block, used = [], 0
        block.append(column)
        used += _GAP + column.width
    if block:
        yield block


def _name_width(first: _Column, width: int | None) -> int:
    """Return the width of the column of names; longer names than half of the terminal stand on lines of their own."""
    fitting = [cell_len(name) for name in (*first.head, *first.cells) if width is None or cell_len(name) <= width // 2]
    return max(fitting)


def _block(first: _Column, columns: Sequence[_Column], width: int | None) -> Iterator[Text]:
    names = _name_width(first, width)
    height = max(len(column.head) for column in columns)
    for line in range(height):
        heads = [(column.head[line] if line < len(column.head) else "") for column in columns]
        yield _line(first.head[0] if line == 0 else "", names, heads, columns)
    for place, name in enumerate(first.cells):
        if cell_len(name) > names:
            yield Text(name, style="bold")
            name = ""
        yield _line(name, names, [column.cells[place] for column in columns], columns)


def _line(name: str, names: int, cells: Sequence[str], columns: Sequence[_Column]) -> Text:
    text = Text(name + " " * (names - cell_len(name)), style="", end="\n")
    text.stylize("bold", 0, len(name))
    for cell, column in zip(cells, columns, strict=True):
        text.append(" " * (_GAP + column.width - cell_len(cell.removesuffix(_BEST)) - (_BEST in cell)))
        text.append(cell, style="bold" if cell.endswith(_BEST) else "")
    text.rstrip()
    return text
