"""Statistics of kept predictions: tests over examples, agreement with the teacher, calibration."""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from railkd import statistics
from railkd.errors import RailkdError
from railkd.records import TEACHER_PART
from railkd.report.scores import SELECTION_SET
from railkd.report.study import Run, Study, arm_order, inside, serves, teacher_arm
from railkd.tasks import Task, task_of_metric

Array = NDArray[Any]
#: Disagreements on the page, and the most characters of their text.
MAX_EXAMPLES, MAX_TEXT = 20, 240


@dataclass(frozen=True)
class Answers:
    """The predictions of one run on one set: N rows, C classes.

    Attributes:
        gold: N true labels.
        predicted: N predicted labels.
        logits: (N, C).
        texts: N texts, "" if they were not kept.
        classes: C names, in the order of the logits.
        task: kind of task of the set.
    """

    gold: list[str]
    predicted: list[str]
    logits: Array
    texts: list[str]
    classes: list[str]
    task: Task

    @cached_property
    def scores(self) -> Array:
        """(N,) scores: 1 for a correct prediction, else 0; for numbers, minus the squared error."""
        return self.task.row_scores(self.gold, self.predicted)

    @cached_property
    def confidence(self) -> Array:
        """(N,) probabilities of the predicted classes."""
        return softmax(self.logits, axis=-1).max(axis=-1)

    @property
    def has_model_classes(self) -> bool:
        """True if each row has one label, and labels and predictions are the model's own classes.

        False for a set with coarser classes, onto which the model's classes are mapped.
        """
        return self.task.one_class and {*self.gold, *self.predicted} <= set(self.classes)


class Predictions:
    """All kept predictions of a study.

    Attributes:
        study: the study.
        sets: (task, set) -> (student, arm) -> seed -> answers. Teachers are arms of the student "".
        domains: (task, set) -> "in" or "out".
        missing: number of files that a record names but that do not exist.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.sets: dict[tuple[str, str], dict[tuple[str, str], dict[int, Answers]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        self.domains: dict[tuple[str, str], str] = {}
        self.missing = 0
        for run, owner in [
            *((run, ("", teacher_arm(run))) for run in study.teachers),
            *((run, (run.record.student, run.record.arm)) for run in study.students),
        ]:
            for name in run.record.predictions:
                answers = self._read(run, name) if name != SELECTION_SET else None
                if answers is not None:
                    place = (run.record.task, name)
                    self.sets[place][owner][run.record.seed] = answers
                    self.domains[place] = run.record.domains.get(name, "in")

    def teacher(self, task: str, name: str, student: str) -> Answers | None:
        """Return the answers of a student's teacher on a set, for the teacher's lowest seed.

        Args:
            task: name of the task.
            name: name of the set.
            student: name of the student.

        Returns:
            The answers; None if they were not kept.
        """
        for run in self.study.teachers:
            if run.record.task == task and serves(run, student) and not run.record.arm.startswith(TEACHER_PART):
                by_seed = self.sets[task, name].get(("", teacher_arm(run)))
                if by_seed:
                    return by_seed[min(by_seed)]
        return None

    def _read(self, run: Run, name: str) -> Answers | None:
        path = inside(run.folder, run.record.predictions[name], run.folder)
        if not path.is_file():
            self.missing += 1
            return None
        try:
            main = next(iter(run.record.metrics.get(name, {})), "")
            task = task_of_metric(main)
            # An empty cell means "no label". With several labels per row it means "no class applies".
            rows = [row for row in _read_tsv(path) if row["gold"] or task.empty_cell]
            columns = [f"logit_{label}" for label in run.record.labels]
            logits = np.array([[float(row[column]) for column in columns] for row in rows])
            gold, predicted = ([row[column] for row in rows] for column in ("gold", "label"))
            texts = [" | ".join(filter(None, (row.get("text"), row.get("text_pair")))) for row in rows]
            answers = Answers(gold, predicted, logits, texts, run.record.labels, task)
            return answers if rows and answers.scores.size else None
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
            raise RailkdError(
                f"{path}: expected a tsv with gold, label and a logit for each class of the run, got "
                f"{type(error).__name__}: {error}. Fix: remove the file to report without it."
            ) from None

    def __iter__(self) -> Iterator[tuple[tuple[str, str], dict[tuple[str, str], dict[int, Answers]]]]:
        yield from sorted(self.sets.items())


def _read_tsv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file, whose cells may be longer than the 128 kB that the csv module takes."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    finally:
        csv.field_size_limit(limit)


def over_examples(predictions: Predictions) -> list[dict[str, Any]]:
    """Compare every arm with the baseline over the rows of each test set.

    Args:
        predictions: the predictions.

    Returns:
        A row for each set, student and arm: the mean difference in points (in squared error for numbers), its bootstrap
        interval and McNemar's test.
    """
    rows = []
    baseline = predictions.study.baseline
    for (task, name), owners in predictions:
        for student, arm in _student_arms(owners):
            base = owners.get((student, baseline), {})
            pairs = [(owners[student, arm][seed], base[seed]) for seed in owners[student, arm] if seed in base]
            pairs = [(ours, theirs) for ours, theirs in pairs if ours.gold == theirs.gold]
            if arm == baseline or not pairs:
                continue
            difference = np.mean([ours.scores - theirs.scores for ours, theirs in pairs], axis=0)  # (N,)
            points = pairs[0][0].task.points
            scale = 100 if points else 1
            low, high = statistics.bootstrap(scale * difference)
            more, fewer, p = statistics.mcnemar(np.round(difference, 9))
            rows.append(
                {
                    "task": task, "set": name, "domain": predictions.domains[task, name], "student": student,
                    "arm": arm, "baseline": baseline, "points": points, "rows": len(difference), "seeds": len(pairs),
                    "mean": float(scale * difference.mean()), "low": low, "high": high,
                    "more": more, "fewer": fewer, "p": p,
                }
            )  # fmt: skip
    return rows


def agreement(predictions: Predictions) -> list[dict[str, Any]]:
    """Compare every arm with its teacher: how often they agree, and which of them is correct.

    Args:
        predictions: the predictions.

    Returns:
        A row for each set, student and arm, with the shares of `_shares`, means over seeds.
    """
    rows = []
    for (task, name), owners in predictions:
        for student, arm in _student_arms(owners):
            teacher = predictions.teacher(task, name, student)
            if teacher is None or not teacher.task.one_class:
                continue
            runs = [run for run in owners[student, arm].values() if run.gold == teacher.gold]
            if runs:
                shares = np.mean([list(_shares(teacher, run).values()) for run in runs], axis=0)
                rows.append(
                    {"task": task, "set": name, "domain": predictions.domains[task, name], "student": student}
                    | {"arm": arm, "seeds": len(runs), "rows": len(teacher.gold)}
                    | dict(zip(_shares(teacher, runs[0]), shares.tolist(), strict=True))
                )
    return rows


def _shares(teacher: Answers, student: Answers) -> dict[str, float]:
    """Return shares of rows: equal answers; both correct; only the teacher; only the student; neither."""
    same = np.array([a == b for a, b in zip(teacher.predicted, student.predicted, strict=True)])
    t, s = teacher.scores == 1, student.scores == 1
    parts = {"agree": same, "both": t & s, "teacher_alone": t & ~s, "student_alone": ~t & s, "neither": ~t & ~s}
    return {name: float(part.mean()) for name, part in parts.items()}


def disagreements(predictions: Predictions, arm: str) -> list[dict[str, Any]]:
    """Compare one arm with the teacher row by row, on the first test set of each task.

    Args:
        predictions: the predictions; the lowest seed of the arm is used.
        arm: the arm.

    Returns:
        A dict for each task and student: the counts of `_detail` and the most confident disagreements.
    """
    details, seen = [], set()
    for (task, name), owners in predictions:
        if task in seen or predictions.domains[task, name] != "in":
            continue
        for student in sorted({student for student, owner_arm in owners if owner_arm == arm}):
            teacher = predictions.teacher(task, name, student)
            if teacher is None or not teacher.has_model_classes:
                continue
            runs = owners[student, arm]
            seed = min(runs)
            if runs[seed].gold == teacher.gold and runs[seed].has_model_classes:
                seen.add(task)
                names = {"task": task, "set": name, "student": student, "arm": arm, "seed": seed}
                details.append(names | _detail(teacher, runs[seed]))
    return details


def _detail(teacher: Answers, student: Answers) -> dict[str, Any]:
    """Return the counts of equal and different answers: as a matrix, by class, by triple, and the examples."""
    classes, n = teacher.classes, len(teacher.gold)
    triples = Counter(zip(teacher.gold, teacher.predicted, student.predicted, strict=True))
    differ = [i for i in range(n) if teacher.predicted[i] != student.predicted[i]]
    return {
        "classes": classes,
        "rows": n,
        "differ": len(differ),
        "matrix": [[sum(n for (_, t, s), n in triples.items() if (t, s) == (a, b)) for b in classes] for a in classes],
        "by_class": [_class_row(name, teacher, student) for name in classes if name in teacher.gold],
        "triples": [
            {"gold": g, "teacher": t, "student": s, "rows": n}
            for (g, t, s), n in sorted(triples.items(), key=lambda item: (-item[1], item[0]))
            if t != s
        ][:MAX_EXAMPLES],
        "examples": _examples(teacher, student, differ),
    }


def _class_row(name: str, teacher: Answers, student: Answers) -> dict[str, Any]:
    """Return the shares of one class: equal answers, teacher correct, student correct."""
    inside = np.array([gold == name for gold in teacher.gold])
    same = np.array([a == b for a, b in zip(teacher.predicted, student.predicted, strict=True)])
    parts = {"agree": same, "teacher": teacher.scores == 1, "student": student.scores == 1}
    return {"gold": name, "rows": int(inside.sum())} | {key: float(part[inside].mean()) for key, part in parts.items()}


def _examples(teacher: Answers, student: Answers, rows: list[int]) -> list[dict[str, Any]]:
    """Return the disagreements in which both models are most confident: by the lower of the two confidences."""
    lower = np.minimum(teacher.confidence, student.confidence)  # (N,)
    return [
        {
            "row": i, "text": _truncate(teacher.texts[i] or student.texts[i]), "gold": teacher.gold[i],
            "teacher": teacher.predicted[i], "teacher_confidence": float(teacher.confidence[i]),
            "student": student.predicted[i], "student_confidence": float(student.confidence[i]),
        }
        for i in sorted(rows, key=lambda i: (-lower[i], i))[:MAX_EXAMPLES]
    ]  # fmt: skip


def calibration(predictions: Predictions) -> list[dict[str, Any]]:
    """Return the calibration of the teachers and of every arm, over the rows of all seeds.

    Args:
        predictions: the predictions.

    Returns:
        A row for each set, student and arm: expected calibration error, mean confidence, accuracy and bins.
    """
    rows = []
    for (task, name), owners in predictions:
        teachers = sorted(owner for owner in owners if not owner[0])
        for student, arm in [*teachers, *_student_arms(owners)]:
            runs = [run for run in owners.get((student, arm), {}).values() if run.has_model_classes]
            if runs:
                confidence = np.concatenate([run.confidence for run in runs])
                correct = np.concatenate([run.scores for run in runs]) == 1
                error, bins = statistics.reliability(confidence, correct)
                rows.append(
                    {"task": task, "set": name, "domain": predictions.domains[task, name], "student": student}
                    | {"arm": arm, "seeds": len(runs), "error": error, "confidence": float(confidence.mean())}
                    | {"accuracy": float(correct.mean()), "bins": [asdict(part) for part in bins]}
                )
    return rows


def _student_arms(owners: dict[tuple[str, str], Any]) -> list[tuple[str, str]]:
    """Return every (student, arm) in the order of the tables, without teachers."""
    arms = arm_order(arm for _, arm in owners)
    return sorted((owner for owner in owners if owner[0]), key=lambda owner: (owner[0], arms.index(owner[1])))


def _truncate(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1].rstrip() + "…"
