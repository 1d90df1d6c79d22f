"""Run ``railkd distill`` in a process of its own, beside a folder ``teacher``; print what it read, as JSON.

Nothing of railkd or transformers is replaced. Files opened by Python are seen through audit events, calls through
`sys.setprofile`, and the models alive when training begins through a callback and the garbage collector.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import BertForSequenceClassification, TrainerCallback

from railkd.cli import main
from railkd.cli.verbs import JOBS
from railkd.jobs.distill import distill

TEACHER = Path("teacher")
#: Functions whose calls are counted, by qualified name -> local variable with the folder or file, if they take one.
CALLS = {
    "AutoConfig.from_pretrained": "pretrained_model_name_or_path",
    "AutoTokenizer.from_pretrained": "pretrained_model_name_or_path",
    "PreTrainedModel.from_pretrained": "pretrained_model_name_or_path",
    "load_file": "filename",
    "Objective.__init__": None,
}

counts: Counter[str] = Counter()
depths: list[int] = []


def hear(event: str, args: tuple[Any, ...]) -> None:
    """Count files of the teacher that are opened."""
    if event == "open" and isinstance(args[0], (str, Path)) and Path(args[0]).parent == TEACHER:
        counts[f"open {Path(args[0]).name}"] += 1


def profile(frame: FrameType, event: str, _: object) -> None:
    """Count calls: of those that take a path, only those with one of the teacher's."""
    if event != "call" or (name := frame.f_code.co_qualname) not in CALLS:
        return
    variable = CALLS[name]
    if variable is None or TEACHER in (path := Path(str(frame.f_locals.get(variable))), *path.parents):
        counts[name] += 1


class Alive(TrainerCallback):
    """Notes the depths of the models in memory when training begins."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        depths.extend(
            thing.config.num_hidden_layers for thing in gc.get_objects() if type(thing) is BertForSequenceClassification
        )


def run(request: Any) -> None:
    distill(request, lambda line: None, [Alive()])


def watch(arguments: list[str]) -> int:
    gc.freeze()  # what was in memory before is not listed
    sys.addaudithook(hear)
    sys.setprofile(profile)
    code = main(["distill", *arguments], {"distill": dataclasses.replace(JOBS["distill"], run=run)})
    sys.setprofile(None)
    print(json.dumps({"counts": counts, "depths": depths}))
    return code
