"""What the models said, row by row, where it was kept: tests over examples, agreement with the teacher, calibration."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from railkd import statistics
from railkd.errors import RailkdError
from railkd.report.scores import SELECTING, teacher_arm
from railkd.report.study import Run, Study, arm_order, teaches
from railkd.tasks.metrics import METRICS

Array = NDArray[Any]
#: Disagreements printed with their text, and how much of it.
SHOWN, TEXT = 20, 240


@dataclass(frozen=True)
class Answers:
    """The predictions of one run on one set: N rows, C classes."""

    gold: list[str]
    given: list[str]
    logits: Array
    texts: list[str]
    classes: list[str]
    kind: str  # classes, several (labels a row) or numbers

    @cached_property
    def scores(self) -> Array:
        """(N,) 1 where the answer is right; minus the squared error of a number."""
        if self.kind == "numbers":
            return -((np.array(self.given, dtype=float) - np.array(self.gold, dtype=float)) ** 2)
        return np.array([a == b for a, b in zip(self.gold, self.given, strict=True)], dtype=float)

    @cached_property
    def confidence(self) -> Array:
        """(N,) probability of the answer given."""
        return softmax(self.logits, axis=-1).max(axis=-1)

    @property
    def of_own_classes(self) -> bool:
        """Whether gold and answers are the model's classes, one a row: not folded onto coarser ones."""
        return self.kind == "classes" and {*self.gold, *self.given} <= set(self.classes)


class Kept:
    """All predictions of a study: (task, set) -> (student, arm) -> seed -> answers; a teacher is ("", its name)."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.sets: dict[tuple[str, str], dict[tuple[str, str], dict[int, Answers]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        self.domains: dict[tuple[str, str], str] = {}
        self.gone = 0
        for run, owner in [
            *((run, ("", teacher_arm(run))) for run in study.teachers),
            *((run, (run.record.student, run.record.arm)) for run in study.students),
        ]:
            for name in run.record.predictions:
                answers = self._read(run, name) if name != SELECTING else None
                if answers is not None:
                    place = (run.record.task, name)
                    self.sets[place][owner][run.record.seed] = answers
                    self.domains[place] = run.record.domains.get(name, "in")

    def teacher(self, task: str, name: str, student: str) -> Answers | None:
        """What the teacher of a student said of a set, of its lowest seed."""
        theirs = [run for run in self.study.teachers if run.record.task == task and teaches(run, student)]
        return next(
            (_first(found) for run in theirs if (found := self.sets[task, name].get(("", teacher_arm(run))))), None
        )

    def _read(self, run: Run, name: str) -> Answers | None:
        path = run.folder / run.record.predictions[name]
        if not path.is_file():
            self.gone += 1
            return None
        try:
            kind = _kind(run, name)
            with path.open(encoding="utf-8", newline="") as file:
                # An empty cell is no label, but where there are several a row: there it may be none that applies.
                rows = [row for row in csv.DictReader(file, delimiter="\t") if row["gold"] or kind == "several"]
            columns = [f"logit_{label}" for label in run.record.labels]
            logits = np.array([[float(row[column]) for column in columns] for row in rows])
            gold, given = ([row[column] for row in rows] for column in ("gold", "label"))
            texts = [row.get("text") or "" for row in rows]
            answers = Answers(gold, given, logits, texts, run.record.labels, kind)
            return answers if rows and answers.scores.size else None
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
            raise RailkdError(
                f"{path}: are no predictions of the run ({type(error).__name__}: {error}); wanted a tsv with gold, "
                "label and a logit for each class; remove the file to do without"
            ) from None

    def __iter__(self) -> Iterator[tuple[tuple[str, str], dict[tuple[str, str], dict[int, Answers]]]]:
        yield from sorted(self.sets.items())


def _kind(run: Run, name: str) -> str:
    metric = METRICS.get(next(iter(run.record.metrics.get(name, {})), ""))
    return "several" if metric is None else "numbers" if metric.regression else "classes"


def over_examples(kept: Kept) -> list[dict[str, Any]]:
    """Every arm against the baseline on every set: bootstrap interval and McNemar's test over its rows."""
    found = []
    baseline = kept.study.baseline
    for (task, name), owners in kept:
        for student, arm in _in_order(owners):
            base = owners.get((student, baseline), {})
            pairs = [(owners[student, arm][seed], base[seed]) for seed in owners[student, arm] if seed in base]
            pairs = [(one, other) for one, other in pairs if one.gold == other.gold]
            if arm == baseline or not pairs:
                continue
            difference = np.mean([one.scores - other.scores for one, other in pairs], axis=0)
            points = pairs[0][0].kind != "numbers"
            scale = 100 if points else 1
            low, high = statistics.bootstrap(scale * difference)
            more, fewer, p = statistics.mcnemar(np.round(difference, 9))
            found.append(
                {
                    "task": task, "set": name, "domain": kept.domains[task, name], "student": student, "arm": arm,
                    "baseline": baseline, "points": points, "rows": len(difference), "seeds": len(pairs),
                    "mean": float(scale * difference.mean()), "low": low, "high": high,
                    "more": more, "fewer": fewer, "p": p,
                }
            )  # fmt: skip
    return found


def agreement(kept: Kept) -> list[dict[str, Any]]:
    """For each set and arm: how often it says what the teacher says, and who is right where they differ."""
    found = []
    for (task, name), owners in kept:
        for student, arm in _in_order(owners):
            teacher = kept.teacher(task, name, student)
            if teacher is None or teacher.kind != "classes":
                continue
            runs = [run for run in owners[student, arm].values() if run.gold == teacher.gold]
            if runs:
                shares = np.mean([_shares(teacher, run) for run in runs], axis=0)
                found.append(
                    {"task": task, "set": name, "domain": kept.domains[task, name], "student": student, "arm": arm}
                    | {"seeds": len(runs), "rows": len(teacher.gold)}
                    | dict(
                        zip(
                            ("agree", "both", "teacher_alone", "student_alone", "neither"), shares.tolist(), strict=True
                        )
                    )
                )
    return found


def _shares(teacher: Answers, student: Answers) -> list[float]:
    """Of rows: same answer; both right; teacher alone right; student alone right; neither."""
    same = np.array([a == b for a, b in zip(teacher.given, student.given, strict=True)])
    t, s = teacher.scores == 1, student.scores == 1
    return [float(part.mean()) for part in (same, t & s, t & ~s, ~t & s, ~t & ~s)]


def disagreements(kept: Kept, arm: str) -> list[dict[str, Any]]:
    """For each task, on its first set in the domain: one arm's lowest seed beside the teacher, in detail."""
    found, seen = [], set()
    for (task, name), owners in kept:
        if task in seen or kept.domains[task, name] != "in":
            continue
        for student in sorted({student for student, owner_arm in owners if owner_arm == arm}):
            teacher = kept.teacher(task, name, student)
            if teacher is None or not teacher.of_own_classes:
                continue
            runs = owners[student, arm]
            seed = min(runs)
            if runs[seed].gold == teacher.gold and runs[seed].of_own_classes:
                seen.add(task)
                place = {"task": task, "set": name, "student": student, "arm": arm, "seed": seed}
                found.append(place | _detail(teacher, runs[seed]))
    return found


def _detail(teacher: Answers, student: Answers) -> dict[str, Any]:
    classes, rows = teacher.classes, range(len(teacher.gold))
    triples = Counter(zip(teacher.gold, teacher.given, student.given, strict=True))
    differ = [i for i in rows if teacher.given[i] != student.given[i]]
    both = np.minimum(teacher.confidence, student.confidence)  # sure of itself, against a teacher that is too
    return {
        "classes": classes,
        "rows": len(teacher.gold),
        "differ": len(differ),
        "matrix": [[sum(n for (_, t, s), n in triples.items() if (t, s) == (a, b)) for b in classes] for a in classes],
        "by_class": [
            {"gold": c, "rows": teacher.gold.count(c)}
            | {
                who: float(np.mean([test(i) for i in rows if teacher.gold[i] == c]))
                for who, test in (
                    ("agree", lambda i: teacher.given[i] == student.given[i]),
                    ("teacher", lambda i: teacher.scores[i] == 1),
                    ("student", lambda i: student.scores[i] == 1),
                )
            }
            for c in classes
            if c in teacher.gold
        ],
        "triples": [
            {"gold": g, "teacher": t, "student": s, "rows": n}
            for (g, t, s), n in sorted(triples.items(), key=lambda item: (-item[1], item[0]))
            if t != s
        ][:SHOWN],
        "examples": [
            {
                "row": i, "text": _cut(teacher.texts[i] or student.texts[i]), "gold": teacher.gold[i],
                "teacher": teacher.given[i], "teacher_confidence": float(teacher.confidence[i]),
                "student": student.given[i], "student_confidence": float(student.confidence[i]),
            }
            for i in sorted(differ, key=lambda i: (-both[i], i))[:SHOWN]
        ],
    }  # fmt: skip


def calibration(kept: Kept) -> list[dict[str, Any]]:
    """For each set: reliability of the teacher and of every arm, the rows of all seeds together."""
    found = []
    for (task, name), owners in kept:
        teachers = sorted(owner for owner in owners if not owner[0])
        for student, arm in [*teachers, *_in_order(owners)]:
            runs = [run for run in owners.get((student, arm), {}).values() if run.of_own_classes]
            if runs:
                confidence = np.concatenate([run.confidence for run in runs])
                right = np.concatenate([run.scores for run in runs]) == 1
                error, bins = statistics.reliability(confidence, right)
                found.append(
                    {"task": task, "set": name, "domain": kept.domains[task, name], "student": student, "arm": arm}
                    | {"seeds": len(runs), "error": error, "confidence": float(confidence.mean())}
                    | {"accuracy": float(right.mean()), "bins": [asdict(found_bin) for found_bin in bins]}
                )
    return found


def _in_order(owners: dict[tuple[str, str], Any]) -> list[tuple[str, str]]:
    """(student, arm), teachers left out."""
    arms = arm_order(arm for _, arm in owners)
    return sorted((owner for owner in owners if owner[0]), key=lambda owner: (owner[0], arms.index(owner[1])))


def _first(runs: dict[int, Answers] | None) -> Answers | None:
    return runs[min(runs)] if runs else None


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1].rstrip() + "…"
