"""The work all sides of `speed.py` do, as a folder of plain files: two checkpoints, rows, and nothing of railkd.

teacher/ student/   transformers checkpoints with their tokenizer
rows.jsonl          {"text": ..., "label": 0 or 1}
work.json           batch size, epochs, length, learning rate, numbers of blocks
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BATCH, EPOCHS, MAX_LENGTH, RATE = 32, 3, 128, 5e-5
#: name -> (teacher blocks, student blocks); "deep" has random weights, "minilm" is the demo's real model.
PAIRS = {"deep": (12, 6), "minilm": (6, 3)}


#: What every Trainer of a timed job is told: nothing logged, nothing saved.
QUIET: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "dataloader_pin_memory": False,
}


def prepare(folder: Path, pair: str, sentences: int) -> dict[str, Any]:
    """Write the folder; returns its settings."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from railkd.cli.demo.model import encoder_folder
    from railkd.models import load_classifier
    from railkd.models.student import make_student

    blocks, kept = PAIRS[pair]
    source = encoder_folder()
    torch.manual_seed(0)
    names: dict[str, Any] = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    if pair == "deep":
        config = BertConfig.from_pretrained(source, num_hidden_layers=blocks, **names)
        teacher: Any = BertForSequenceClassification(config)
    else:
        teacher = load_classifier(source, num_labels=2, **names)
    tokenizer = AutoTokenizer.from_pretrained(source)
    for name, model in (("teacher", teacher), ("student", make_student(teacher, kept))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows, source_name = sample(sentences)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "pair": pair,
        "blocks": [blocks, kept],
        "sentences": len(rows),
        "source": source_name,
        "batch": BATCH,
        "epochs": EPOCHS,
        "max_length": MAX_LENGTH,
        "rate": RATE,
    }
    (folder / "work.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return settings


def sample(count: int) -> tuple[list[dict[str, Any]], str]:
    """Real sentences: SST-2 of ../shared/data, or the demo's movie reviews where that is not there."""
    file = SHARED / "glue" / "SST-2" / "train.tsv"
    if file.is_file():
        lines = [line.split("\t") for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]]
        table, name = [(text, int(label)) for text, label in lines], "SST-2"
    else:
        from railkd.cli.demo.data import sentiment_sets

        table = [(row.text, int(row.label == "positive")) for row in sentiment_sets().train]
        name = "the demo's movie sentences"
    chosen = np.random.default_rng(0).choice(len(table), min(count, len(table)), replace=False)
    return [{"text": table[i][0], "label": table[i][1]} for i in chosen], name


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and settings of a folder that `prepare` wrote."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [json.loads(line) for line in lines], json.loads((folder / "work.json").read_text(encoding="utf-8"))


def serve(make: Callable[[Path], Any]) -> None:
    """A process that answers for some sides: warm up on a few rows, say so, then run a job for every line "SIDE SEED".

    Its arguments are the names of the sides, with commas, and the folder; ``make(folder)`` has a method for each side.
    """
    said, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    sides = make(Path(sys.argv[2]))
    for name in sys.argv[1].split(","):
        getattr(sides, name)(0, sides.rows.select(range(128)))
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        name, seed = line.split()
        print(json.dumps(getattr(sides, name)(int(seed))), file=said, flush=True)


def ratio(ours: list[float], theirs: list[float], *, seed: int = 0) -> dict[str, Any]:
    """Ratio of medians over paired rounds, with a 95 % bootstrap interval over the rounds."""
    a, b = np.asarray(ours), np.asarray(theirs)
    picks = np.random.default_rng(seed).integers(0, len(a), (2000, len(a)))
    draws = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "ratio": round(float(np.median(a) / np.median(b)), 3),
        "interval_95": [round(float(low), 3), round(float(high), 3)],
        "rounds": len(a),
    }


def rss_anon_mb() -> float:
    """Anonymous resident memory of this process: file pages, which the system takes back at will, not counted."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell RssAnon; measuring memory needs Linux")


def machine() -> str:
    """One line: processor, cores, versions."""
    import torch
    import transformers

    from railkd.runtime import hardware

    found = hardware.machine()
    bf16 = "fast bf16" if found["fast bf16"] else "no fast bf16"
    return (
        f"{found['processor']}, {found['cores']} cores, {bf16}, {platform.system()}; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {found['threads']} threads"
    )
