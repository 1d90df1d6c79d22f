"""Everything a report says, as one plain dict that JSON can hold. The page, Markdown and CSV are views of it."""

from __future__ import annotations

from typing import Any

from railkd.report import costs, dynamics, format, predictions, provenance, scores
from railkd.report.study import Study, arm_order
from railkd.runtime.words import counted

#: Of the dict.
SCHEMA = 1


def content(study: Study) -> dict[str, Any]:
    """Records in, report out. A section without data is an empty list, and its reason is in ``missing``."""
    found = scores.Scores(study)
    kept = predictions.Kept(study)
    asked = scores.contrasts(found)
    arms = arm_order(run.record.arm for run in study.students)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "name": study.name,
        "baseline": study.baseline,
        "arms": arms,
        "students": found.students,
        "tasks": sorted({run.record.task for run in study.runs}),
        "runs": {"finished": len(study.runs), "failed": len(study.failed)},
        "scores": {domain: scores.table(found, domain) for domain in scores.DOMAINS},
        "contrasts": asked,
        "differences": scores.differences(found),
        "examples": predictions.over_examples(kept),
        "times": costs.times(study),
        "cost": costs.cost(study, found),
        "curves": dynamics.curves(study),
        "coverage": dynamics.coverage(study),
        "similarity": dynamics.similarity(study),
        "gauges": dynamics.gauges(study),
        "agreement": predictions.agreement(kept),
        "disagreements": predictions.disagreements(kept, _subject(asked, arms, study.baseline)),
        "calibration": predictions.calibration(kept),
        "failed": provenance.failures(study),
        "environment": provenance.environment(study),
        "commands": provenance.commands(study),
    }
    report["headline"] = format.headline(report)
    report["notes"] = _notes(study, report, kept)
    report["missing"] = {name: reason for name, reason in MISSING.items() if not report[name]}
    return report


def _subject(asked: dict[str, Any], arms: list[str], baseline: str) -> str:
    """The arm a reader came for: that of the first contrast, or the last in order."""
    rows = [row["arm"] for row in asked["rows"] if row["arm"] in arms]
    return rows[0] if rows and asked["named"] else next((arm for arm in reversed(arms) if arm != baseline), baseline)


def _notes(study: Study, report: dict[str, Any], kept: predictions.Kept) -> list[str]:
    """What must be known before the numbers are believed."""
    failed, gone = len(report["failed"]), kept.gone
    tables = report["scores"].values()
    notes = [*study.notes]
    if failed:
        notes.append(f"{counted(failed, 'run')} failed and {'is' if failed == 1 else 'are'} left out.")
    if not any(table["columns"] for table in tables):
        notes.append("No finished run was scored on a test set: give the runs a --test.")
    for row in report["gauges"]:
        if row["warned"]:
            who = row["arm"] + (f", {row['student']}" if len(report["students"]) > 1 else "")
            notes.append(f"{who}: the intermediate term collapsed in {row['warned']} of {counted(row['runs'], 'run')}.")
    if any(not column["points"] for table in tables for column in table["columns"]):
        notes.append("Squared errors are shown as they are, and are in no average, rank or contrast.")
    if gone:
        notes.append(f"{counted(gone, 'file')} of predictions {'is' if gone == 1 else 'are'} no longer there.")
    return notes + report["environment"]["warnings"]


#: Why a section may be empty.
MISSING = {
    "examples": "No predictions of two arms on equal rows and seeds were kept (--keep-predictions).",
    "curves": "The runs logged no curve.",
    "coverage": "No arm draws teacher blocks.",
    "similarity": "No run read the similarity of blocks.",
    "gauges": "No run read the gauges.",
    "agreement": "No predictions of teacher and students on equal rows were kept (--keep-predictions).",
    "calibration": "No predictions of classes were kept (--keep-predictions).",
}
