"""The work that every side of `speed.py` does, as a folder of plain files that can be read without railkd.

teacher/ student/   transformers checkpoints with their tokenizer
rows.jsonl          {"text": ..., "label": 0 or 1}
work.json           batch size, epochs, maximum length, learning rate, numbers of blocks
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: SST-2 in GLUE's layout, where a checkout has it beside it.
SST2 = Path(__file__).resolve().parents[2] / "shared" / "data" / "glue" / "SST-2" / "train.tsv"
BATCH, EPOCHS, MAX_LENGTH, RATE = 32, 3, 128, 5e-5
#: Pair of models -> (teacher blocks, student blocks). "deep" has random weights, "minilm" is the demo's model.
PAIRS = {"deep": (12, 6), "minilm": (6, 3)}
#: Arguments of every Trainer in a timed job: it neither logs nor saves.
QUIET: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "dataloader_pin_memory": False,
}


def arguments(settings: dict[str, Any], folder: str, seed: int) -> dict[str, Any]:
    """Return the arguments that every Trainer in a timed job gets.

    Args:
        settings: those in work.json.
        folder: where the Trainer writes.
        seed: of the run.

    Returns:
        Fields of transformers' TrainingArguments.
    """
    return QUIET | {
        "output_dir": folder,
        "num_train_epochs": settings["epochs"],
        "per_device_train_batch_size": settings["batch"],
        "learning_rate": settings["rate"],
        "seed": seed,
    }


def textbrewer_outputs(batch: Any, outputs: Any) -> dict[str, Any]:
    """Return what TextBrewer reads of the outputs of a model."""
    return {
        "logits": outputs.logits,
        "losses": outputs.loss,
        "hidden": outputs.hidden_states,
        "inputs_mask": batch["attention_mask"],
    }


def prepare(folder: Path, pair: str, sentences: int) -> dict[str, Any]:
    """Write the folder.

    Args:
        folder: where to write.
        pair: a key of `PAIRS`.
        sentences: the number of rows.

    Returns:
        The settings in work.json.
    """
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


def sample(count: int, file: Path = SST2) -> tuple[list[dict[str, Any]], str]:
    """Draw labelled sentences from SST-2 or, if its file does not exist, from the demo's movie reviews.

    Args:
        count: the number of sentences, or all if there are fewer.
        file: the training rows of SST-2.

    Returns:
        Rows with "text" and "label" (0 or 1), and the name of the data set.
    """
    if file.is_file():
        lines = [line.split("\t") for line in file.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]]
        table, name = [(text, int(label)) for text, label in lines], "SST-2"
    else:
        from railkd.cli.demo.data import sentiment_sets

        table = [(text, int(label == "positive")) for text, label in sentiment_sets().train]
        name = "the demo's movie sentences"
    chosen = np.random.default_rng(0).choice(len(table), min(count, len(table)), replace=False)
    return [{"text": table[i][0], "label": table[i][1]} for i in chosen], name


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows and the settings of a folder that `prepare` wrote."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [json.loads(line) for line in lines], json.loads((folder / "work.json").read_text(encoding="utf-8"))


def serve(make: Callable[[Path], Any]) -> None:
    """Run jobs of some sides: warm up on a few rows, print "ready", then run a job for every input line "SIDE SEED".

    The arguments of the process are the names of the sides, separated by commas, and the folder.

    Args:
        make: takes the folder, returns an object with a method for each side.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # Keeps the prints of libraries out of the answers.
    sides = make(Path(sys.argv[2]))
    for name in sys.argv[1].split(","):
        getattr(sides, name)(0, sides.rows.select(range(128)))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, seed = line.split()
        print(json.dumps(getattr(sides, name)(int(seed))), file=answers, flush=True)


def ratio(ours: list[float], theirs: list[float], *, seed: int = 0) -> dict[str, Any]:
    """Return the ratio of medians over paired rounds, with a 95 % bootstrap interval over the rounds.

    Args:
        ours: seconds of each round.
        theirs: seconds of the same rounds.
        seed: of the bootstrap.
    """
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
    """Return the anonymous resident memory of this process in MB, without file pages, which the system can drop."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no RssAnon. Measuring memory needs Linux")


def machine() -> str:
    """Return the processor, its cores and the versions of the libraries, as one line."""
    import torch
    import transformers

    from railkd.runtime import hardware

    found = hardware.machine()
    bf16 = "fast bf16" if found["fast bf16"] else "no fast bf16"
    return (
        f"{found['processor']}, {found['cores']} cores, {bf16}, {platform.system()}; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {found['threads']} threads"
    )
