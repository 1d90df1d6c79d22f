"""How much memory the tokens of a table take, while they are made and afterwards.

    python performance/table_memory.py                 # 50,000 and 200,000 rows; under a minute
    python performance/table_memory.py --rows 1000000
    python performance/table_memory.py --whole --rows 300000 1000000   # cache and distil, from a file of JSON lines

A table of sentences of 8 to 30 words lies on disk as Arrow and is read through a memory map, so that its texts are no
memory of the process. A separate process prepares it for training: it tokenises, makes the keys and reads the labels.
A thread watches the anonymous memory of that process.

With --whole, `railkd cache` runs a tiny teacher over all rows of a file and `railkd distill` trains a student for 200
steps. The peak is that of all memory of each process, as the system counts it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import work

WORDS = [f"word{number}" for number in range(2000)]
SIZES = (50_000, 200_000)


def write(folder: Path, rows: int) -> None:
    """Write a table of made-up sentences with labels, in parts."""
    from datasets import Dataset, Features, Value

    def sentences() -> Any:
        chance = random.Random(0)
        for number in range(rows):
            yield {
                "text": " ".join(chance.choices(WORDS, k=chance.randint(8, 30))),
                "label": ("neg", "pos")[number % 2],
            }

    features = Features({"text": Value("string"), "label": Value("string")})
    Dataset.from_generator(sentences, features=features, cache_dir=str(folder / "parts")).save_to_disk(folder / "table")


def make_tokenizer() -> Any:
    """Return a tokenizer of one token for each word, with the inputs of BERT."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    rules = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names
    )


class Watch(threading.Thread):
    """Notes the highest anonymous memory of this process, in MB, every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._going = 0.0, True

    def run(self) -> None:
        while self._going:
            self.peak = max(self.peak, work.rss_anon_mb())
            time.sleep(0.005)

    def stop(self) -> float:
        self._going = False
        self.join()
        return self.peak


def measure(folder: Path) -> dict[str, float]:
    """Prepare the table for training; return the MB that this adds at its peak and afterwards, and the seconds."""
    from datasets import load_from_disk
    from transformers import BertConfig

    from railkd.training import DistillationTrainingArguments
    from railkd.training.prepare import Preparer

    table: Any = load_from_disk(str(folder / "table"))
    names = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    args = DistillationTrainingArguments(output_dir=str(folder / "out"), report_to="none", use_cpu=True)
    preparer = Preparer(BertConfig(vocab_size=len(WORDS) + 4, **names), make_tokenizer(), args)
    preparer.train(table.select(range(2000)))  # loads what is loaded once
    gc.collect()
    before = work.rss_anon_mb()
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    rows, _ = preparer.train(table)
    seconds = time.perf_counter() - start
    peak = watch.stop()
    gc.collect()
    tokens = sum(sum(batch["length"]) for batch in rows.select_columns("length").iter(10_000))
    return {
        "rows": len(rows),
        "tokens_a_row": round(tokens / len(rows), 1),
        "peak_mb": round(peak - before, 1),
        "kept_mb": round(work.rss_anon_mb() - before, 1),
        "seconds": round(seconds, 1),
    }


def write_lines(folder: Path, rows: int) -> None:
    """Write a file of made-up sentences with labels, and a teacher of one block."""
    from transformers import BertConfig, BertForSequenceClassification

    chance = random.Random(0)
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(rows):
            text = " ".join(chance.choices(WORDS, k=chance.randint(8, 30)))
            file.write(json.dumps({"text": text, "label": ("neg", "pos")[number % 2]}) + "\n")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    BertForSequenceClassification(BertConfig(vocab_size=len(WORDS) + 4, **small, **names)).save_pretrained(folder / "t")
    make_tokenizer().save_pretrained(folder / "t")


def run_whole(folder: Path) -> dict[str, float]:
    """Cache the outputs and states of the teacher, and distil it; return the peak memory of each command in MB."""
    common = ["--train", str(folder / "rows.jsonl"), "--teacher", str(folder / "t"), "--cache", str(folder / "cache")]
    train = ["--output", str(folder / "out"), "--student-layers", "1", "--method", "rail-kd-l", "--max-steps", "200"]
    train += ["--candidates", "all", "--allow-weak-teacher"]
    quiet = ["--quiet", "--max-length", "32"]
    found: dict[str, float] = {}
    for name, more in (("cache", ["--batch-tokens", "16384"]), ("distill", train)):
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "railkd", name, *common, *quiet, *more])
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"railkd {name} ended with status {status}")
        found |= {f"{name}_mb": round(usage.ru_maxrss / 1024), f"{name}_seconds": round(time.perf_counter() - start)}
    return found


def main() -> None:
    """Parse the command line, measure each size in a process of its own, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--whole", action="store_true", help="cache and distil, instead of making tokens alone")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        place, count = Path(args.child[0]), int(args.child[1])
        if count:
            write(place, count)
        else:
            print(json.dumps(measure(place)))
        return
    print(work.machine())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1"}
    os.environ.update(environment)
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            if args.whole:
                write_lines(Path(folder), rows)
                print(json.dumps({"rows": rows} | run_whole(Path(folder))), flush=True)
                continue
            for what in (rows, 0):
                command: list[str] = [sys.executable, __file__, "--child", folder, str(what)]
                out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        print(out.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
