"""What ships: the files of an export side by side with their model and its teacher, and certificates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.tasks.metrics import greater_is_better

#: The starts of the kinds of a record of an export and of a file of evidence. Files of other kinds are left alone.
EXPORT, CERTIFICATE = "railkd export", "railkd certificate"
_NUMBERS = ("size", "p50_ms", "p95_ms", "rows_per_second", "ratio", "size_ratio")
#: File -> its content.
Found = list[tuple[Path, Mapping[str, Any]]]


def find_exports(folders: Iterable[Path]) -> Found:
    """Read the record of every export in the folders, or below them.

    Args:
        folders: that the user named.

    Returns:
        The records, in the order of their paths.
    """
    files = dict.fromkeys(file for folder in folders for file in sorted(folder.rglob("export.json")))
    return [(file, _read(file)) for file in files if _is_of(EXPORT, file)]


def find_certificates(folders: Iterable[Path], exports: Found) -> Found:
    """Read the files of evidence that ``railkd certify`` wrote into the folders, or beside an export.

    Args:
        folders: that the user named.
        exports: that were found there.

    Returns:
        The evidence, in the order of the paths.
    """
    places = dict.fromkeys([*folders, *(file.parent for file, _ in exports)])
    files = dict.fromkeys(file for place in places for file in sorted(place.glob("*.json")))
    return [(file, _read(file)) for file in files if _is_of(CERTIFICATE, file)]


def _is_of(kind: str, file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as lines:
            return f'"kind": "{kind}' in lines.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RailkdError(f"{file}: expected a record of railkd, got a file that cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise RailkdError(f"{file}: expected a record of railkd, got a JSON {type(found).__name__}.")
    return found


def exports(found: Found) -> list[dict[str, Any]]:
    """Return the exports: which files there are, what they score, and what they cost.

    Args:
        found: the records of exports.

    Returns:
        A dict for each export that timed its files, with ``sides``, one for each model, and ``gates``.

    Raises:
        RailkdError: a record lacks what an export writes.
    """
    rows = []
    for file, record in found:
        try:
            if "latency" in record:
                rows.append(_export(file, record))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise RailkdError(
                f"{file}: expected the record of an export, but it lacks {error}. Fix: export again."
            ) from None
    return rows


def _export(file: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    sides = record["latency"]["sides"]
    sets = list(sides[0].get("scores", {}))
    gates = record.get("int8", {}).get("gates", [])
    together = record.get("int8", {}).get("together")
    return {
        "name": file.parent.name,
        "model": Path(str(record["config"].get("model", ""))).name,
        "threads": record["latency"]["threads"],
        "processor": record["machine"]["processor"],
        "metric": sides[0].get("metric", ""),
        "points": greater_is_better(sides[0].get("metric", "")),
        "sets": sets,
        "sides": [_side(side, sets) for side in sides],
        "gates": [line for one in ([together] if together else gates) for line in _lines(one)],
    }


def _side(side: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    scores = {name: float(side["scores"][name]) for name in sets}
    return {
        "name": str(side["name"]),
        "scores": scores,
        "score": sum(scores.values()) / len(scores) if scores else None,
        "agreement": side.get("agreement"),
        "parameters": side.get("parameters"),
        **{name: float(side[name]) for name in _NUMBERS},
    }


def _lines(judgement: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "set": judgement["name"],
            "group": line["name"],
            "state": line["state"],
            "rows": line["drop"]["rows"],
            "drop": line["drop"]["drop"],
            "bound": line["drop"]["bound"],
            "allowed": line["margin"],
            "needed": line["needed"],
        }
        for line in judgement["lines"]
    ]


def certificates(found: Found) -> list[dict[str, Any]]:
    """Return the certificates: whether a model is shown to be no worse than another, overall and in each group.

    Args:
        found: files of evidence.

    Returns:
        A dict for each certificate.

    Raises:
        RailkdError: a file lacks what certify writes.
    """
    rows = []
    for file, evidence in found:
        try:
            judged = [evidence["together"]] if evidence["together"] else evidence["sets"]
            rows.append(
                {
                    "file": file.name,
                    "model": evidence["config"]["model"],
                    "against": evidence["config"]["against"],
                    "passes": bool(evidence["passes"]),
                    "one_model": bool(evidence["one_model"]),
                    "smallest_margin": max(float(one["smallest_margin"]) for one in judged),
                    "flips": sum(len(one["flips"]) for one in evidence["sets"]),
                    "lines": [line for one in judged for line in _lines(one)],
                }
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RailkdError(
                f"{file}: expected evidence of certify, but it lacks {error}. Fix: certify again."
            ) from None
    return rows
