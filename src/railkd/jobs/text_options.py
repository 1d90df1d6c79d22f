"""The options of jobs that read texts alone; see `railkd.jobs.options`."""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.option import option

#: How ``railkd augment`` makes new texts: the names of `railkd.data.augmenting.HOWS`, which needs numpy.
WAYS = ("replace", "drop", "splice")
#: Help of ``--unlabelled`` of the jobs that train or check.
UNLABELLED = (
    "rows without labels, for the loss terms that need the teacher only; may be repeated, each with its share of every "
    "batch (FILE:0.3)"
)


@dataclass
class TextOptions:
    """Which columns of a file hold its texts."""

    text_column: list[str] | None = option(
        "column that holds the text; two columns for pairs of texts (default: a column with a common name)",
        metavar="NAME",
        group="data",
    )


@dataclass
class AugmentOptions(TextOptions):
    """Options of ``railkd augment``: from which texts, how many copies, and how."""

    train: list[str] = option(
        "rows to make new texts from; labels are not read; may be repeated",
        [],
        metavar="FILE",
        group="data",
        required="--unlabelled",
    )
    unlabelled: list[str] = option(
        "more rows to make new texts from; may be repeated", [], metavar="FILE", group="data"
    )
    eval: str | None = option(
        "rows that select the epoch later: a row with such a text is left out", metavar="FILE", group="data"
    )
    test: list[str] = option(
        "rows that are scored later, left out like those of --eval; may be repeated",
        [],
        metavar="[NAME=]FILE",
        group="data",
    )
    ood: list[str] = option(
        "out-of-domain rows that are scored later, left out too; may be repeated",
        [],
        metavar="[NAME=]FILE",
        group="data",
    )
    output: str | None = option(
        "file for the new texts: .tsv, .csv or .jsonl", metavar="FILE", group="data", required=True
    )
    copies: int = option("new texts for each row", 4, metavar="N")
    how: list[str] = option(
        "ways to make them, in turns: words replaced by words of the corpus, words dropped, two rows spliced",
        ["replace"],
        choices=WAYS,
    )
    rate: float = option("share of the words of a text that change, on average", 0.3, metavar="P")
    one_side: float | None = option(
        "of pairs, the share of copies that change one text and keep the other (default: 0.5)", metavar="P"
    )
    seed: int = option("seed of the draws", 0, metavar="N")
    quiet: bool = option("print no messages", False)
