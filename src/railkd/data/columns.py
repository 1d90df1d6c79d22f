"""Finds the text and label columns: those that a user names, or else by common names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import joined, named, shortened

# The first match counts. Pairs come first, otherwise QNLI's "sentence" would be read without its "question".
TEXT_CONVENTIONS: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("#1 String", "#2 String"),  # MRPC
    ("premise", "hypothesis"),
    ("question", "sentence"),  # QNLI
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("text", "text_pair"),
    ("sentence",),
    ("text",),
    ("review",),
    ("content",),
    ("comment",),
    ("tweet",),
    ("utterance",),
    ("document",),
    ("question",),
    ("query",),
)
# gold_label comes first, because MNLI and SNLI also have the labels of single raters (label1, label2, ...).
LABEL_CONVENTIONS: tuple[str, ...] = (
    "gold_label",
    "label",
    "labels",
    "score",
    "is_duplicate",
    "Quality",
    "similarity",
    "similarity_score",
    "relatedness_score",
    "class",
    "target",
    "category",
    "sentiment",
    "rating",
    "stars",
)


@dataclass(frozen=True)
class Columns:
    """The columns of a data set that are read.

    Attributes:
        text: one text column, or two for pairs.
        label: the label column, or None.
    """

    text: tuple[str, ...]
    label: str | None

    def describe(self) -> str:
        """Return the choice in words.

        Example:
            >>> Columns(("sentence1", "sentence2"), "label").describe()
            'text: sentence1 + sentence2; labels: label'
        """
        return f"text: {joined(self.text, ' + ')}; labels: {shortened(self.label or 'none')}"


def find_columns(names: Sequence[str], *, text: Sequence[str] | None = None, label: str | None = None) -> Columns:
    """Find the text and label columns. Columns that are not asked for are found by common names, in any case.

    Args:
        names: of all columns.
        text: the text columns that the user asks for, one or two.
        label: the label column that the user asks for.

    Returns:
        The columns, with a label of None if no column has a common name of labels.

    Raises:
        RailkdError: a column that is asked for does not exist or is asked for twice, or no text column is found.

    Example:
        >>> find_columns(["index", "question", "sentence", "label"])
        Columns(text=('question', 'sentence'), label='label')
        >>> find_columns(["id", "Review", "stars", "shop"], label="shop")
        Columns(text=('Review',), label='shop')
    """
    if label is not None:
        _require(label, names, "--label-column")
    if text:
        chosen = _asked_for(text, names, label)
    else:
        found = (match_columns(wanted, names, without=(label,)) for wanted in TEXT_CONVENTIONS)
        chosen = next((match for match in found if match), ())
        if not chosen:
            raise RailkdError(
                f"no column has a common name of a text column; the columns are {named(names)}. "
                "Fix: name one, or two for pairs: --text-column NAME [NAME] (in Python text_columns=[...])."
            )
    if label is None:
        matches = (match_columns((wanted,), names, without=chosen) for wanted in LABEL_CONVENTIONS)
        label = next((match[0] for match in matches if match), None)
    return Columns(chosen, label)


def compare_texts(trained: Sequence[str], chosen: Sequence[str], names: Sequence[str]) -> str:
    """Return how the text columns of a file differ from those that a model was trained on, in words.

    Args:
        trained: the text columns of the training; empty: not known.
        chosen: the text columns that are read.
        names: of all columns of the file.

    Returns:
        The difference; empty if there is none, or if the file names its columns otherwise.

    Example:
        >>> compare_texts(["question", "answer"], ["question"], ["question", "label"])
        "the model was trained on pairs of texts ('question' and 'answer'), this is one text ('question')"
    """
    if not trained or list(chosen) == list(trained):
        return ""
    if len(chosen) != len(trained):
        kinds = [
            f"{'pairs of texts' if len(texts) > 1 else 'one text'} ({named(texts)})" for texts in (trained, chosen)
        ]
        return f"the model was trained on {kinds[0]}, this is {kinds[1]}"
    usual = match_columns(trained, names)
    if not usual or usual == tuple(chosen):
        return ""
    return f"the model was trained on the text of {named(trained)}, this is the text of {named(chosen)}"


def _asked_for(text: Sequence[str], names: Sequence[str], label: str | None) -> tuple[str, ...]:
    for name in text:
        _require(name, names, "--text-column")
    if len(text) > 2:
        raise RailkdError(f"expected one text column, or two for sentence pairs, got {len(text)} ({named(text)}).")
    if len(set(text)) < len(text) or label in text:
        twice = label if label in text else text[0]
        raise RailkdError(f"column {shortened(str(twice))!r} is asked for twice. Text and label columns must differ.")
    return tuple(text)


def _require(name: str, names: Sequence[str], flag: str) -> None:
    if name not in names:
        raise RailkdError(
            f"{flag}: no column {shortened(name)!r}; the columns are {named(names)}.{did_you_mean(name, names)}"
        )


def match_columns(wanted: Sequence[str], names: Sequence[str], without: Sequence[str | None] = ()) -> tuple[str, ...]:
    """Return the wanted columns as the file spells them, in any case, or () if one is missing.

    Args:
        wanted: names.
        names: of all columns.
        without: columns that do not count.
    """
    # Reversed, so that the first of several spellings is kept.
    spelled = {name.casefold(): name for name in reversed(names) if name not in without}
    found = tuple(spelled[name.casefold()] for name in wanted if name.casefold() in spelled)
    return found if len(found) == len(wanted) else ()
