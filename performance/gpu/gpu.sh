#!/bin/sh
# Measure railkd on a CUDA card and write a record (see README.md). Needs a Python >= 3.11 with torch; no .venv, no network.
# Arguments go to run.py. PYTHON: the interpreter. WHEELS: a folder of wheels for what that interpreter lacks (.whl).
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
wheels=${WHEELS:-$root/.whl}
cd "$root"

enough='import importlib.util, sys; sys.exit(sys.version_info < (3, 11) or importlib.util.find_spec("torch") is None)'
python=
for candidate in ${PYTHON:-.venv/bin/python python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c "$enough" >/dev/null 2>&1; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "Expected a Python >= 3.11 with torch, found none. Fix: give its path (PYTHON=/path/to/python)." >&2
    exit 2
fi

ready='import datasets, railkd.training'
PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
if ! "$python" -c "$ready" >/dev/null 2>&1 && [ -d "$wheels" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
    PYTHONPATH=$site:$PYTHONPATH
fi
"$python" "$here/run.py" "$@"
