#!/bin/sh
# Download the wheels that a machine with a recent torch, accelerate and tokenizers usually lacks, for gpu.sh.
#     sh wheels.sh [Python version, default 3.12] [folder, default .whl]
# Versions are those of constraints.txt. Linux on x86-64.
set -eu
version=${1:-3.12}
folder=${2:-.whl}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
mkdir -p "$folder"
pinned=$(grep -E "^(transformers|datasets|dill|multiprocess|regex|xxhash|pydantic|pydantic_core|annotated-types|typing-inspection)==" constraints.txt)
# shellcheck disable=SC2086  # one word a package
"$python" -m pip download --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$folder" $pinned
# TextBrewer has no wheel on the index; it is pure Python. Without it that comparison is left out.
"$python" -m pip wheel --disable-pip-version-check --no-deps -w "$folder" "textbrewer==0.2.1.post1" ||
    echo "TextBrewer could not be built; its comparison will be left out" >&2
du -sh "$folder"
