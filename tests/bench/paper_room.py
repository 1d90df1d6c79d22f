"""The grid ``paper`` or ``glue`` with small stand-ins of its models and data, in the layouts of the real ones.

python tests/bench/paper_room.py FOLDER     writes models, data and paper.yaml, glue.yaml into a folder
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import tiny
from railkd.bench import bundled_grids
from railkd.data.glue import GLUE, GlueTask
from railkd.data.ood import OOD

WIDTH = 128
#: Name of a model in the grids -> folder of its stand-in.
MODELS = {
    "google-bert/bert-base-uncased": "models/bert-base-uncased",
    "FacebookAI/roberta-large": "models/roberta-large",
    "distilbert/distilbert-base-uncased": "models/distilbert-base-uncased",
    "distilbert/distilroberta-base": "models/distilroberta-base",
}


def make(folder: Path, rows: int = 320) -> Path:
    """Write the models, the data and the two grids.

    Args:
        folder: made if it does not exist.
        rows: training rows of each task; its other sets have a quarter.

    Returns:
        The folder.
    """
    _write_models(folder)
    for task in GLUE:
        _write_sets(folder / "glue" / task.name, task, {"train": rows} | dict.fromkeys(task.dev, rows // 4))
    for row in OOD:
        _write_sets(folder / "ood" / row.name, row, {"test": rows // 4})
    for name in ("paper", "glue"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(_grid(name), sort_keys=False))
    return folder


def _grid(name: str) -> dict[str, Any]:
    """Return a bundled grid on local models and data; everything else is unchanged but for the device."""
    grid: dict[str, Any] = yaml.safe_load(bundled_grids.read_grid(name))
    tasks = {task: {"settings": own["settings"]} if "settings" in own else None for task, own in grid["tasks"].items()}
    students = [
        student | {"model": MODELS[student["model"]], "teacher": student["teacher"] | _on_disk(student["teacher"])}
        for student in grid["students"]
    ]
    return {key: value for key, value in grid.items() if key != "resources"} | {
        "tasks": tasks,
        "students": students,
        "data": "glue",
        "ood": "ood",
    }


def _on_disk(teacher: dict[str, Any]) -> dict[str, str]:
    return {"finetune": MODELS[teacher["finetune"]]}


def _write_models(folder: Path) -> None:
    tokenizer = tiny.make_tokenizer([*tiny.WORDS, *(f"class{i}" for i in range(3))])
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": 0}
    deep = sizes | {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH}
    torch.manual_seed(0)
    models: dict[str, Any] = {
        "google-bert/bert-base-uncased": BertForSequenceClassification(BertConfig(num_hidden_layers=12, **deep)),
        "FacebookAI/roberta-large": RobertaForSequenceClassification(RobertaConfig(num_hidden_layers=24, **deep)),
        "distilbert/distilroberta-base": RobertaForSequenceClassification(RobertaConfig(num_hidden_layers=6, **deep)),
        "distilbert/distilbert-base-uncased": DistilBertForSequenceClassification(
            DistilBertConfig(n_layers=6, dim=WIDTH, n_heads=4, hidden_dim=2 * WIDTH, **sizes)
        ),
    }
    for name, model in models.items():
        names = ["input_ids", "attention_mask"] if "distil" in name or "roberta" in name.lower() else None
        tokenizer.model_input_names = names or ["input_ids", "token_type_ids", "attention_mask"]
        tiny.save(folder / MODELS[name], model, tokenizer)


def _write_sets(folder: Path, task: GlueTask, sizes: dict[str, int]) -> None:
    """Write sets in the layout of a task. A word tells the class, and how many of them the number of a regression."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(folder.name)
    columns = list(task.headerless) or [*task.text, task.label]
    for split, count in sizes.items():
        lines = [] if task.headerless else ["\t".join(columns)]
        for _ in range(count):
            place = rng.randrange(max(len(task.labels), 1) if task.labels else 6)
            cells = {name: " ".join(rng.choices(tiny.WORDS, k=rng.randint(4, 20))) for name in task.text}
            marks = [f"class{place}"] if task.labels else ["good"] * place
            cells[task.text[0]] = " ".join([*marks, cells[task.text[0]]])
            answers: Any = task.cells or task.labels
            cells[task.label] = str(answers[place]) if task.labels else f"{place:.1f}"
            lines.append("\t".join(cells.get(name, "x") for name in columns))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
