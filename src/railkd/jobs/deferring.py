"""Lets a student answer the rows that it is sure of, and defers the others to a larger model.

The promise, and how the threshold is chosen: `railkd.statistics.deferral`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from railkd.data.reader import Table
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.calibrate import refuse_numbers
from railkd.jobs.held_out import check_held_out
from railkd.jobs.options import Say
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import PredictOptions
from railkd.jobs.splits import TableReader
from railkd.jobs.thresholds import Thresholds
from railkd.jobs.trained import Trained, trained_length
from railkd.runtime.words import counted, listed
from railkd.statistics.deferral import Deferral, choose_threshold, fewest_rows
from railkd.tasks import Task


class Deferring:
    """The threshold of one command, and the model that deferred rows go to.

    Args:
        options: settings of ``railkd predict``, with --defer.
        student: that is to answer.
        task: of its answers, which may follow thresholds.
        cut: these thresholds; None: there are none.
        say: receives lines for the user.
    """

    def __init__(self, options: PredictOptions, student: Scorer, task: Task, cut: Thresholds | None, say: Say) -> None:
        self._options, self._task, self._cut, self._say = options, task, cut, say
        self._name, self._share = str(options.defer_to or options.against), float(options.defer or 0)
        refuse_numbers(self._task, str(options.model))
        self._large = Scorer.find(self._name, trust=options.trust_remote_code)
        ours, theirs = tuple(student.checkpoint.labels), tuple(self._large.checkpoint.labels)
        if ours != theirs or self._large.checkpoint.task.name != self._task.name:
            raise RailkdError(
                f"Expected two models with the same classes in the same order, got {listed(ours, 20)} and "
                f"{listed(theirs, 20) or 'a number'}. Fix: defer to a model of the same task."
            )
        self._milliseconds: list[float] = []
        self._rows = self._deferred = 0
        self._found = self._fit(student)

    def _fit(self, student: Scorer) -> Deferral | None:
        """Choose the threshold on the held-out rows."""
        options = self._options
        table = self._read(Source.parse(str(options.held_out)), student)
        needed = fewest_rows(self._share)
        if len(table) < needed:
            raise RailkdError(
                f"--held-out: expected at least {needed:,} rows, with which an agreement of {self._percent} can be "
                f"shown, got {len(table):,}. Fix: give more rows, or a smaller --defer."
            )
        if self._cut is not None and self._cut.fitted_on.holds(table):
            raise RailkdError(
                f"--held-out: expected rows that chose nothing else, but '{table.source.text}' holds the rows that "
                f"--thresholds '{options.thresholds}' were fitted on. Fix: give other rows."
            )
        for name in (str(options.model), self._name):
            self._say(check_held_out(name, table, "--held-out"))
        outputs, theirs = (self._timed(model.load(), table) for model in (student, self._large))
        same = self._task.decide(outputs) == self._large.checkpoint.task.decide(theirs)
        sure = self._task.confidence(outputs)
        found = choose_threshold(sure, same.reshape(len(table), -1).all(axis=1), self._share)
        where = f"{counted(len(table), 'held-out row')} of {table.source.text}"
        if found is None:
            self._say(
                f"warning: deferral, fitted on {where}: no confidence is shown to give an agreement of {self._percent} "
                f"with '{self._name}', so all rows are deferred. Fix: give more rows, or a smaller --defer."
            )
        else:
            self._say(
                f"deferral, fitted on {where}: the student answers where its confidence is at least "
                f"{found.threshold:.4f}; there it agrees with '{self._name}' on {found.agreed:,} of "
                f"{found.answered:,} rows, at least {found.bound:.2%} with 95 % confidence; coverage "
                f"{found.coverage:.1%}"
            )
        return found

    def _read(self, source: Source, student: Scorer) -> Table:
        """Read the held-out rows, with their labels if they have any: the digests of older runs are made of both."""
        reader = TableReader(self._options, self._say, Trained.of(student.checkpoint.config))
        try:
            return reader.read(source, split="dev")
        except RailkdError:
            return reader.read(source, split="dev", labelled=False)

    @property
    def _percent(self) -> str:
        return f"{100 * self._share:g} %"

    def _timed(self, model: Scorer, table: Table) -> np.ndarray:
        start = time.perf_counter()
        found = self._logits(model, table.rows, self._say)
        self._milliseconds.append(1000 * (time.perf_counter() - start) / max(1, len(table)))
        return found

    def _logits(self, model: Scorer, texts: Any, say: Say) -> np.ndarray:
        length = trained_length(self._options.max_length, model.checkpoint.config, say)
        return model.logits(texts, max_length=length, batch_size=self._options.batch_size)

    def treat(
        self, texts: Any, outputs: np.ndarray, answers: list[dict[str, Any]], form: Callable[[np.ndarray], list[Any]]
    ) -> list[dict[str, Any]]:
        """Return the answers with the column ``deferred``, 0 or 1.

        Deferred rows hold the answers of the larger model if the options say so, and those of the student otherwise.

        Args:
            texts: table of N texts.
            outputs: (N, C) logits of the student.
            answers: N rows of columns, of the student.
            form: makes rows of columns of the logits of the larger model.

        Returns:
            N rows of columns, in the same order.
        """
        deferred = self._task.confidence(outputs) < (np.inf if self._found is None else self._found.threshold)
        self._rows, self._deferred = self._rows + len(deferred), self._deferred + int(deferred.sum())
        places = np.flatnonzero(deferred).tolist()
        found = [row | {"deferred": int(flag)} for row, flag in zip(answers, deferred, strict=True)]
        if places and self._options.defer_to:
            logits = self._logits(self._large, texts.select(places), lambda line: None)
            for place, answer in zip(places, form(logits), strict=True):
                found[place] |= answer | {"index": found[place]["index"]}
        return found

    def report(self, where: str) -> None:
        """Tell the user how many rows were deferred, and what this costs.

        Args:
            where: the rows, in words.
        """
        student, large = self._milliseconds
        share = self._deferred / max(1, self._rows)
        what = "are answered by" if self._options.defer_to else "are marked for"
        self._say(
            f"deferral, shown on {where}: the student answers {self._rows - self._deferred:,} of "
            f"{counted(self._rows, 'row')} ({1 - share:.1%}); {self._deferred:,} {what} '{self._name}'"
        )
        together = student + share * large
        self._say(
            f"cost: {student:.3g} ms a row of the student, and {large:.3g} ms of '{self._name}' for {share:.1%} of the "
            f"rows; together {together:.3g} ms, {together / large:.2f} of '{self._name}' alone (timed on the held-out "
            "rows, in batches, tokenisation included)"
        )
