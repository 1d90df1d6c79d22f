"""Run the fast part of the test suite on the lowest and the newest versions of what railkd needs: make test-versions.

Each set of versions gets a virtual environment of its own under .versions/, from the package index that pip uses. The
lowest versions are those that pyproject.toml declares. torch is the exception: most of its versions bring a CUDA build
of several gigabytes along, so both sets take the version of constraints.txt. Give --torch to test another one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What touches other libraries, and needs neither network nor minutes.
FAST = [
    *("tests/test_functional.py", "tests/test_mapping.py", "tests/objectives/test_by_hand.py", "tests/tasks"),
    *("tests/data/test_columns.py", "tests/data/test_labels.py", "tests/models/test_blocks.py"),
    *("tests/models/test_heads.py", "tests/teacher/test_cache.py", "tests/training/test_private_names.py"),
    *("tests/training/test_samplers.py", "tests/training/test_trainer.py", "tests/training/test_streaming.py"),
    "tests/jobs/test_run_folder.py",
]
TOOLS = ("pytest>=9.0", "hypothesis>=6.120", "jinja2", "matplotlib", "statsmodels")
_LOWEST = re.compile(r"([\w.-]+)>=([\w.]+)")


def declared() -> dict[str, str]:
    """Return the dependencies of railkd and the lowest version of each."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        lines = tomllib.load(file)["project"]["dependencies"]
    return {found[1]: found[2] for line in lines if (found := _LOWEST.match(line))}


def requirements(kind: str, lowest: Mapping[str, str], torch: str) -> list[str]:
    """Return what pip installs for the lowest or newest set; ``torch`` is a version or "newest".

    >>> requirements("lowest", {"numpy": "2.0", "torch": "2.6"}, "2.13.0")
    ['numpy==2.0', 'torch==2.13.0']
    """
    exact = {name: f"{name}=={version}" if kind == "lowest" else name for name, version in lowest.items()}
    if kind == "newest":  # within the declared range
        exact["transformers"] = "transformers<6"
    return list((exact | {"torch": "torch" if torch == "newest" else f"torch=={torch}"}).values())


def tested_torch() -> str:
    """Return the version of torch in constraints.txt."""
    found = re.search(r"^torch==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def run(kind: str, python: str, torch: str, tests: list[str]) -> int:
    """Install one set of versions and run the tests in it; return the exit code of pytest."""
    folder = ROOT / ".versions" / kind
    own = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    install = [own, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--upgrade", "--no-compile"]
    subprocess.run([*install, "--only-binary", ":all:", *requirements(kind, declared(), torch), *TOOLS], check=True)
    subprocess.run([*install, "--no-deps", "-e", str(ROOT)], check=True)
    shown = "import sys, torch, transformers, numpy; print(sys.version.split()[0], torch.__version__, end=' ');"
    subprocess.run([own, "-c", shown + "print(transformers.__version__, numpy.__version__)"], check=True)
    # Newer libraries warn of what they will drop; only failures count here.
    words = [own, "-m", "pytest", "-q", "-x", "-W", "default", "-p", "no:cacheprovider", *tests]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {"TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(words, cwd=ROOT, env=os.environ | threads, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["lowest", "newest"], help="lowest, newest (default: both)")
    parser.add_argument(
        "--torch", default=tested_torch(), metavar="VERSION", help="or newest; may download gigabytes (%(default)s)"
    )
    parser.add_argument("--tests", nargs="+", default=FAST, metavar="FILE", help="default: the fast part of the suite")
    given = parser.parse_args()
    newer = next((name for name in ("python3.13", "python3.12") if shutil.which(name)), sys.executable)
    pythons = {"lowest": sys.executable, "newest": newer if given.torch == "newest" else sys.executable}
    codes = {kind: run(kind, pythons[kind], given.torch, given.tests) for kind in given.kinds}
    for kind, code in codes.items():
        print(f"{kind}: {'passed' if code == 0 else 'failed'}")
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main())
