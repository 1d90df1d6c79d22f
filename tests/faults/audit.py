"""``make audit``: known holes in the pinned versions, by pip-audit.

A hole fails. The lack of an advisory service is said, and is no failure of ours: package mirrors serve no advisories.
"""

from __future__ import annotations

import json
import subprocess
import sys

AUDIT = ["-m", "pip_audit", "-r", "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
OFFLINE = ("ConnectionError", "ServiceError", "Max retries", "NameResolution", "HTTPError", "No module named pip_audit")


def verdict(code: int, out: str, err: str) -> tuple[int, str]:
    """Exit code and words for what pip-audit left: its JSON on stdout, or an error."""
    try:
        found = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if any(word in err for word in OFFLINE):
            return 0, "nothing was audited: no pip-audit, or no advisory service, can be reached from here"
        return code or 1, err
    holes = [f"{d['name']} {d['version']}: {hole['id']}" for d in found for hole in d.get("vulns", [])]
    skipped = sum("skip_reason" in dependency for dependency in found)
    words = f"{len(found) - skipped} of {len(found)} packages audited, {len(holes)} known holes"
    if skipped:
        words += f"; the advisory service does not know the other {skipped}"
    return int(bool(holes)), "\n".join([*holes, words])


if __name__ == "__main__":
    done = subprocess.run([sys.executable, *AUDIT, "--format", "json"], capture_output=True, text=True)
    code, words = verdict(done.returncode, done.stdout, done.stderr)
    print(f"audit: {words}")
    sys.exit(code)
