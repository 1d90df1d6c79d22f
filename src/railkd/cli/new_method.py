"""Write a small package with a method of one's own: ``railkd methods --new NAME --output FOLDER``."""

from __future__ import annotations

import re
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from railkd.errors import RailkdError
from railkd.runtime.files import write_text

_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "A distillation method for railkd"
requires-python = ">=3.11"
dependencies = ["railkd"]

[project.optional-dependencies]
test = ["railkd[testing]"]

# railkd finds the method by this entry point, without importing the package.
[project.entry-points."railkd.methods"]
$name = "$package:$cls"

[tool.setuptools]
packages = ["$package"]
"""
_CLASS = '''\
"""$cls: the student's last block learns the direction of the teacher's last block.

Equation: ``mean( 1 - cos(W hs_s, ht_n) )`` over the batch, with the pooled states hs (B, s, d_s) and ht (B, n, d_t).

Source: compare the cosine term of DistilBERT, Sanh et al. 2019 (arXiv 1910.01108). Replace this by your paper.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from railkd.objectives import Linear, Objective, states_of


class $cls(Objective):
    """``mean( 1 - cos(W hs_s, ht_n) )``, but for rows that agree already.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        margin: rows whose cosine distance is below this add nothing.
        options: weights and temperature, see `railkd.objectives.Objective`.
    """

    paper = "name it here, with its arXiv number"
    reads = "the last of both"
    pooling = "mean"  # "mean", "cls", or None for a method that reads logits alone

    def __init__(self, student_shape: Any, teacher_shape: Any, *, margin: float = 0.0, **options: Any) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        self.margin = margin
        self.student_map = Linear(self.student_shape.width, self.teacher_shape.width)  # trained with the student

    def intermediate(self, student: Any, teacher: Any, draw: Any) -> Tensor:
        """Return the term, a scalar: the mean over the batch."""
        h_s = self.student_states(student)[:, -1]  # (B, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher")[:, -1].to(h_s)  # (B, d_t)
        distance = 1 - F.cosine_similarity(self.student_map(h_s), h_t, dim=-1)  # (B,)
        return F.relu(distance - self.margin).mean()
'''
_LAWS = '''\
"""$cls is held to the laws that every method of railkd keeps."""

from $package import $cls

from railkd.testing import ObjectiveLaws


class Test$cls(ObjectiveLaws):
    method = $cls
'''
_GRID = """\
# $name beside fine-tuning, kd and rail-kd-l, over three seeds. Name your files below.
name: "$name"
tasks:
  mine:
    train: train.tsv
    test: [test.tsv]
teacher: {finetune: bert-base-uncased}
students:
  - layers: 3
methods:
  - finetune
  - kd
  - rail-kd-l
  - {name: "$name", margin: [0.0, 0.1]}
seeds: 3
baseline: kd
"""
_README = """\
# $name

A distillation method for railkd. `$package/__init__.py` holds its equation and its class.

```bash
pip install -e ".[test]"                               # railkd now knows the method by its name
python -m pytest                                       # the laws that every method of railkd keeps
railkd methods $name                                   # paper, cost and options
railkd bench grid.yaml --output runs/                  # finetune, kd, rail-kd-l and $name, three seeds
```

One run: `railkd distill --teacher DIR --student-layers 3 --train train.tsv --method $name --margin 0.1 --output out/`.
"""
#: Path in the package -> template.
_FILES = {
    "pyproject.toml": _PROJECT,
    "$package/__init__.py": _CLASS,
    "tests/test_laws.py": _LAWS,
    "grid.yaml": _GRID,
    "README.md": _README,
}


#: Names that the modules of the package import, and the folder of its tests.
_USED = frozenset({"Any", "F", "Linear", "Objective", "ObjectiveLaws", "Tensor", "tests"})


def _words_for(name: str) -> dict[str, str]:
    return {"name": name, "package": name.replace("-", "_"), "cls": "".join(map(str.capitalize, name.split("-")))}


def check_name(name: str, taken: list[str]) -> None:
    """Refuse a name that no package and method can have.

    Args:
        name: of the method.
        taken: names of methods.

    Raises:
        RailkdError: the name is taken, has other characters than small letters, digits and dashes, or names a module or
            class that cannot be written or would hide another.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RailkdError(f"--new: expected small letters, digits and dashes, such as my-cosine, got '{name}'")
    if name in taken:
        raise RailkdError(f"--new: a method '{name}' exists already. Fix: choose another name")
    words = _words_for(name)
    for made in (words["package"], words["cls"]):
        if iskeyword(made) or made in _USED:
            owner = "Python" if iskeyword(made) else "the package itself"
            raise RailkdError(f"--new: '{made}' is a word that {owner} uses. Fix: choose another name")
    if find_spec(words["package"]) is not None:
        raise RailkdError(f"--new: a module '{words['package']}' is installed already. Fix: choose another name")


def write_package(name: str, folder: Path) -> list[Path]:
    """Write the package.

    Args:
        name: of the method.
        folder: to write into; made if it does not exist.

    Returns:
        The files.

    Raises:
        RailkdError: a file of the package exists there already.
    """
    words = _words_for(name)
    texts = {
        folder / Template(path).substitute(words): Template(text).substitute(words) for path, text in _FILES.items()
    }
    for path in texts:
        if path.exists():
            raise RailkdError(f"--output: '{path}' exists already. Fix: name another folder")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return list(texts)
