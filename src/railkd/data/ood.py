"""Out-of-domain sets as a table: the training tasks that a set serves, and what its labels mean to their models.

Sources of the sets: McCoy et al. 2019 (HANS), Zhang et al. 2019 (PAWS), Khot et al. 2018 (SciTail), Maas et al. 2011
(IMDb), Gardner et al. 2020 (contrast sets), Bowman et al. 2015 (SNLI), Wang et al. 2021 (AdvGLUE), Warstadt et al. 2019
(CoLA's out-of-domain half), Kaushik et al. 2020 (counterfactual NLI).

Labels are matched by name. If a model has more classes than a set, its prediction (the argmax over all its classes) is
mapped to a class of the set: "neutral" and "contradiction" both count as "non-entailment" of HANS. Probabilities are
not summed before the argmax, because that would score another model than the one in use.
"""

from __future__ import annotations

from dataclasses import dataclass

from railkd.data.glue import GlueTask, find_by_folder, find_task, folder_key


@dataclass(frozen=True)
class OodSet(GlueTask):
    """One out-of-domain set. Its ``labels`` are the classes that are scored.

    Attributes:
        serves: the training tasks whose models it tests.
        fold: (class of a model, class of this set), where the names differ.

    Example:
        >>> find_row("ood/HANS/test.tsv").renamed["neutral"]
        'non-entailment'
    """

    serves: tuple[str, ...] = ()
    fold: tuple[tuple[str, str], ...] = ()

    @property
    def renamed(self) -> dict[str, str]:
        """Class of a model -> class of this set, where the names differ."""
        return dict(self.fold)


_SENTENCES = ("sentence1", "sentence2")
_DIGITS = ("0", "1")
_THREE_WAY = ("entailment", "neutral", "contradiction")
_NLI = ("MNLI", "SNLI", "SNLI_CAD")
_TO_TWO_WAY = (("neutral", "not_entailment"), ("contradiction", "not_entailment"))

OOD: tuple[OodSet, ...] = (
    OodSet(
        name="HANS",
        text=_SENTENCES,
        label="label",
        labels=("entailment", "non-entailment"),
        metrics=("accuracy",),
        hub="jhu-cogsci/hans",
        licence="MIT",
        serves=("RTE", *_NLI),
        fold=tuple((name, "non-entailment") for name in ("neutral", "contradiction", "not_entailment")),
    ),
    OodSet(
        name="PAWS",
        text=_SENTENCES,
        label="label",
        labels=("no_paraphrase", "paraphrase"),
        metrics=("accuracy", "f1"),
        cells=_DIGITS,
        hub="google-research-datasets/paws:labeled_final",
        licence="free for any use, with a request to name Google",
        serves=("QQP", "MRPC"),
        fold=(
            ("not_duplicate", "no_paraphrase"),
            ("duplicate", "paraphrase"),
            ("not_equivalent", "no_paraphrase"),
            ("equivalent", "paraphrase"),
        ),
    ),
    OodSet(
        name="SciTail",
        text=("premise", "hypothesis"),
        label="label",
        labels=("entails", "neutral"),
        metrics=("accuracy",),
        hub="allenai/scitail:tsv_format",
        licence="Apache-2.0",
        serves=("RTE", *_NLI),
        fold=(("entailment", "entails"), ("contradiction", "neutral"), ("not_entailment", "neutral")),
    ),
    OodSet(
        name="IMDb",
        text=("text",),
        label="label",
        labels=("neg", "pos"),
        metrics=("accuracy",),
        hub="stanfordnlp/imdb",
        licence="not stated; reviews of IMDb",
        serves=("SST-2",),
        fold=(("negative", "neg"), ("positive", "pos")),
    ),
    OodSet(
        name="IMDB_CONTRAST",
        text=("sentence",),
        label="label",
        labels=("Negative", "Positive"),
        metrics=("accuracy",),
        licence="not stated; reviews of IMDb",
        serves=("SST-2", "IMDb"),
        fold=(("negative", "Negative"), ("positive", "Positive"), ("neg", "Negative"), ("pos", "Positive")),
    ),
    OodSet(
        name="SNLI",
        text=("premise", "hypothesis"),
        label="label",
        labels=_THREE_WAY,
        metrics=("accuracy",),
        hub="stanfordnlp/snli",
        licence="CC BY-SA 4.0",
        serves=("MNLI", "RTE"),
        fold=_TO_TWO_WAY,
    ),
    OodSet(
        name="SNLI_CAD_REVISED",
        text=_SENTENCES,
        label="label",
        labels=_THREE_WAY,
        metrics=("accuracy",),
        licence="not stated for the edits; SNLI is CC BY-SA 4.0",
        serves=("SNLI_CAD", "SNLI", "MNLI", "RTE"),
        fold=_TO_TWO_WAY,
    ),
    OodSet(
        name="CoLA_OOD",
        text=("sentence",),
        label="label",
        labels=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
        cells=_DIGITS,
        headerless=("source", "label", "original_mark", "sentence"),
        licence="published for research",
        serves=("CoLA",),
    ),
    OodSet(
        name="ADV_SST-2",
        text=("sentence",),
        label="label",
        labels=("negative", "positive"),
        metrics=("accuracy",),
        cells=_DIGITS,
        hub="AI-Secure/adv_glue:adv_sst2",
        licence="CC BY-SA 4.0",
        serves=("SST-2",),
    ),
    OodSet(
        name="ADV_QQP",
        text=("question1", "question2"),
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        cells=_DIGITS,
        hub="AI-Secure/adv_glue:adv_qqp",
        licence="CC BY-SA 4.0; questions of Quora, non-commercial",
        serves=("QQP",),
    ),
    OodSet(
        name="ADV_RTE",
        text=_SENTENCES,
        label="label",
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        hub="AI-Secure/adv_glue:adv_rte",
        licence="CC BY-SA 4.0",
        serves=("RTE",),
        fold=_TO_TWO_WAY,
    ),
)
_BY_FOLDER = {folder_key(row.name): row for row in OOD}


def find_row(path: str, hint: str = "") -> GlueTask | OodSet | None:
    """Find the row of a path or hub name in this table or in GLUE's, by the name of its folder.

    Args:
        path: of a file or folder, or a name on the hub.
        hint: the config of a hub set.

    Returns:
        The row, or None.

    Example:
        >>> find_row("AI-Secure/adv_glue", "adv_sst2").name, find_row("glue/RTE/dev.tsv").name, find_row("a.tsv")
        ('ADV_SST-2', 'RTE', None)
    """
    return find_task(path, hint) or find_by_folder(path, hint, _BY_FOLDER, collections=("advglue",))


def is_out_of_domain(row: GlueTask | None, trained_on: GlueTask | None = None) -> bool:
    """Return whether a set is out of domain: every set of this table is, except for a model that was trained on it.

    Args:
        row: of the set that is scored, if it has one.
        trained_on: the row of the training set, if it has one.

    Example:
        >>> hans, rte = find_row("ood/HANS/test.tsv"), find_row("glue/RTE")
        >>> is_out_of_domain(hans, rte), is_out_of_domain(hans, hans), is_out_of_domain(rte)
        (True, False, False)
    """
    return isinstance(row, OodSet) and row is not trained_on
