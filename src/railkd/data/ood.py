"""Out-of-domain sets as a table, ``ood.toml``.

A row holds the training tasks that a set serves, and what its labels mean to their models.

Sources of the sets: McCoy et al. 2019 (HANS), Zhang et al. 2019 (PAWS), Khot et al. 2018 (SciTail), Maas et al. 2011
(IMDb), Gardner et al. 2020 (contrast sets), Bowman et al. 2015 (SNLI), Wang et al. 2021 (AdvGLUE), Warstadt et al. 2019
(CoLA's out-of-domain half), Kaushik et al. 2020 (counterfactual NLI).

Labels are matched by name. If a model has more classes than a set, its prediction (the argmax over all its classes) is
mapped to a class of the set: "neutral" and "contradiction" both count as "non-entailment" of HANS. Probabilities are
not summed before the argmax, because that would score another model than the one in use.
"""

from __future__ import annotations

from dataclasses import dataclass

from railkd.data.glue import GlueTask, find_by_folder, find_task, folder_key, read_table


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


OOD = read_table("ood", OodSet)
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
