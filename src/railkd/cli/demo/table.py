"""Prints the table that ends the demo: what each model scores, weighs and takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Line:
    """One model in the table of results.

    Attributes:
        model: "teacher", the method of the student, or "int8" for the file made of the best student.
        parameters: number of parameters.
        megabytes: size of the weights on disk.
        latency_ms: median milliseconds for one sentence on this machine, with one thread.
        movie: test accuracy on movie sentences, from 0 to 1.
        product: test accuracy on product sentences.
        news: test accuracy on news sentences.
        kept: movie accuracy divided by that of the teacher.
        teacher_pass_s: seconds of the teacher pass; 0 for a model that needs none.
        training_s: seconds of training; 0 for a file made of a trained model.
    """

    model: str
    parameters: int
    megabytes: float
    latency_ms: float
    movie: float
    product: float
    news: float
    kept: float
    teacher_pass_s: float
    training_s: float


_COLUMNS: tuple[tuple[str, Callable[[Line], str]], ...] = (
    ("model", lambda line: line.model),
    ("params", lambda line: f"{line.parameters / 1e6:.1f} M"),
    ("cache", lambda line: f"{line.teacher_pass_s:.0f} s" if line.teacher_pass_s else "-"),
    ("train", lambda line: f"{line.training_s:.0f} s" if line.training_s else "-"),
    ("movie", lambda line: f"{line.movie:.3f}"),
    ("product", lambda line: f"{line.product:.3f}"),
    ("news", lambda line: f"{line.news:.3f}"),
    ("kept", lambda line: f"{100 * line.kept:.1f}%"),
    ("MB", lambda line: f"{line.megabytes:.0f}"),
    ("ms", lambda line: f"{line.latency_ms:.1f}"),
)
_LEGEND = (
    "cache: the single teacher pass, which all students share. movie, product, news: test accuracy; product and news "
    "are out of domain. int8: the best student on the dev rows, exported. kept: movie accuracy as a share of the "
    "teacher's. MB: size on disk. ms: latency of one sentence on this machine with one thread, tokenisation included."
)


def rich_table(lines: Sequence[Line]) -> Table:
    """Return the table for a terminal of 80 columns.

    Args:
        lines: the teacher, then the students.
    """
    table = Table(caption=_LEGEND, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name, _ in _COLUMNS:
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(show(line) for _, show in _COLUMNS), end_section=line.model == "teacher")
    return table


def markdown_table(lines: Sequence[Line]) -> str:
    """Return the table as Markdown, with its legend.

    Args:
        lines: as for `rich_table`.
    """
    rows = [[name for name, _ in _COLUMNS], ["---"] * len(_COLUMNS)]
    rows += [[show(line) for _, show in _COLUMNS] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{_LEGEND}\n"
