"""An audit fails on a hole, and on nothing else that is not ours."""

from __future__ import annotations

import json

from faults.audit import verdict

SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
HOLE = {"name": "pyyaml", "version": "5.3", "vulns": [{"id": "PYSEC-2021-142", "fix_versions": ["5.4"]}]}


def told(code: int, *dependencies: object) -> tuple[int, str]:
    return verdict(code, json.dumps({"dependencies": dependencies, "fixes": []}), "")


def test_a_hole_fails_and_is_named() -> None:
    code, words = told(1, SOUND, HOLE, UNKNOWN)
    assert code == 1 and "pyyaml 5.3: PYSEC-2021-142" in words and "2 of 3 packages audited, 1 known holes" in words


def test_the_audit_counts_what_it_did_not_read() -> None:
    assert told(0, SOUND) == (0, "1 of 1 packages audited, 0 known holes")
    assert told(0, UNKNOWN) == (
        0,
        "0 of 1 packages audited, 0 known holes; the advisory service does not know the other 1",
    )


def test_without_a_service_it_does_not_fail_and_with_another_error_it_does() -> None:
    assert verdict(1, "", "requests.exceptions.ConnectionError: Max retries exceeded")[0] == 0
    assert verdict(1, "", "constraints.txt: invalid requirement") == (1, "constraints.txt: invalid requirement")
