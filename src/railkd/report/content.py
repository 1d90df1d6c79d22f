"""Build the report as one plain dict that fits into JSON. The page, Markdown and CSV are views of it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from railkd.report import costs, dynamics, provenance, shipped
from railkd.report import scores as score_tables
from railkd.report.asked import asked
from railkd.report.by_class import by_class
from railkd.report.headline import headline
from railkd.report.predictions import Predictions, agreement, calibration, disagreements, over_examples
from railkd.report.study import Study, arm_order
from railkd.runtime.words import counted

#: Version of the dict.
SCHEMA = 1


def content(study: Study) -> dict[str, Any]:
    """Return the report of a study.

    Args:
        study: the records.

    Returns:
        The report: numbers, texts, lists and dicts only. A section without data is an empty list, and ``missing``
        holds the reason.
    """
    scores = score_tables.Scores(study)
    predictions = Predictions(study)
    contrasts = score_tables.contrasts(scores)
    arms = arm_order(run.record.arm for run in study.students)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "name": study.name,
        "baseline": study.baseline,
        "arms": arms,
        "students": scores.students,
        "tasks": sorted({run.record.task for run in study.runs}),
        "runs": {"finished": len(study.runs), "failed": len(study.failed)},
        "scores": {domain: score_tables.table(scores, domain) for domain in score_tables.DOMAINS},
        "asked": asked(study),
        "contrasts": contrasts,
        "differences": score_tables.differences(scores),
        "classes": by_class(study),
        "examples": over_examples(predictions),
        "times": costs.times(study),
        "cost": costs.cost(study, scores),
        "exports": shipped.exports(study.exports),
        "certificates": shipped.certificates(study.certificates),
        "curves": dynamics.curves(study),
        "coverage": dynamics.coverage(study),
        "similarity": dynamics.similarity(study),
        "gauges": dynamics.gauges(study),
        "agreement": agreement(predictions),
        "disagreements": disagreements(predictions, _arm_to_inspect(contrasts, arms, study.baseline)),
        "calibration": calibration(predictions),
        "failed": provenance.failures(study),
        "environment": provenance.environment(study),
        "papers": provenance.papers(study),
        "commands": provenance.commands(study),
    }
    report["headline"] = headline(report)
    report["notes"] = _notes(study, report, predictions.missing)
    report["missing"] = {name: reason for name, reason in MISSING.items() if not report[name]}
    return report


def _arm_to_inspect(contrasts: dict[str, Any], arms: list[str], baseline: str) -> str:
    """Return the arm to compare with the teacher row by row: that of the first named contrast, else the last arm."""
    named = [row["arm"] for row in contrasts["rows"] if row["arm"] in arms] if contrasts["named"] else []
    return next(iter(named), "") or next((arm for arm in reversed(arms) if arm != baseline), baseline)


def _notes(study: Study, report: dict[str, Any], missing_files: int) -> list[str]:
    """Return the caveats: what to know before trusting the numbers."""
    failed = len(report["failed"])
    tables = report["scores"].values()
    notes = [*study.notes]
    if failed:
        notes.append(f"{counted(failed, 'run')} failed and {'is' if failed == 1 else 'are'} left out.")
    if study.runs and not any(table["columns"] for table in tables):
        notes.append("No finished run has a score on a test set. Fix: give the runs a --test.")
    notes += _unlike_steps(study, report["contrasts"]["rows"])
    for row in report["gauges"]:
        if row["warned"]:
            name = row["arm"] + (f", {row['student']}" if len(report["students"]) > 1 else "")
            notes.append(
                f"{name}: the intermediate loss term collapsed in {row['warned']} of {counted(row['runs'], 'run')}."
            )
    if any(not column["points"] for table in tables for column in table["columns"]):
        notes.append("Squared errors are shown unscaled and enter no average, rank or contrast.")
    if missing_files:
        notes.append(
            f"{counted(missing_files, 'file')} of predictions {'is' if missing_files == 1 else 'are'} missing."
        )
    return notes + report["environment"]["warnings"]


def _unlike_steps(study: Study, contrasts: list[dict[str, Any]]) -> list[str]:
    """Return a note for each contrast between runs of unlike numbers of steps. Records before ``seen`` have none."""
    steps: dict[str, dict[Any, int]] = defaultdict(dict)
    for run in study.students:
        if "steps" in run.record.seen:
            steps[run.record.arm][run.record.task, run.record.student, run.record.seed] = run.record.seen["steps"]
    notes = {}
    for arm, baseline in ((row["arm"], row["baseline"]) for row in contrasts):
        pairs = [(steps[arm][key], steps[baseline][key]) for key in steps[arm].keys() & steps[baseline].keys()]
        unlike = sorted(pair for pair in pairs if pair[0] != pair[1])
        if unlike:
            many = f"{len(unlike)} of {counted(len(pairs), 'pair')} of runs"
            notes[arm, baseline] = (
                f"{arm} against {baseline}: {many} have unlike numbers of steps, such as {unlike[-1][0]:,} and "
                f"{unlike[-1][1]:,}, so that the difference is not due to the arms alone. Fix: give all arms the same "
                "max_steps."
            )
    return list(notes.values())


#: Section -> why it may be empty.
MISSING = {
    "examples": "No predictions of two arms on equal rows and seeds were kept (--keep-predictions).",
    "curves": "The runs have no training log.",
    "coverage": "No arm draws teacher blocks.",
    "similarity": "No run measured the similarity of blocks.",
    "gauges": "No run measured the collapse gauges.",
    "agreement": "No predictions of teacher and students on equal rows were kept (--keep-predictions).",
    "calibration": "No predictions of a classifier were kept (--keep-predictions).",
}
