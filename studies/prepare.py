"""Write the rows and the encoder that the grids of this folder name, into studies/work (not committed).

``python studies/prepare.py movies`` writes the sentences of ``make demo``: 3,000 labelled ones, 500 that choose the
epoch, the other training sentences without labels, and all test sentences. ``movies-500`` has 500 labelled ones.
``SST-2-500`` and ``TREC-500`` take 500 rows of a folder of data sets with their labels and up to 6,400 others without,
``SST-2-7k`` 7,000 rows with their labels. ``TREC-noise`` and ``SST-2-7k-noise`` give a fifth of the labels another
class. ``MRPC-copies`` and ``movies-copies`` (after ``movies-500``) write text without labels that ``railkd augment``
makes. ``random-encoder`` is the encoder with random weights. ``python studies/prepare.py --data DIR TREC-500`` reads
DIR/other/TREC/train.tsv, those of SST-2 and MRPC DIR/glue/SST-2/train.tsv and DIR/glue/MRPC. The grids name test
files below ../shared/data; change these paths for another folder.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from railkd.cli.demo.data import sentiment_sets, subset, write_tsv
from railkd.cli.demo.model import encoder_folder
from railkd.jobs.augment import augment
from railkd.jobs.text_options import AugmentOptions

STUDIES = Path(__file__).resolve().parent
WORK, SHARED = STUDIES / "work", STUDIES.parents[1] / "shared" / "data"
CHOOSING, UNLABELLED = 500, 6400


def movies(folder: Path, _data: Path, labelled: int) -> None:
    """Write the movie sentences, and product and news sentences as sets out of the domain."""
    sets = sentiment_sets()
    train = subset(sets.train, labelled)
    known = {text for text, _ in train}
    write_tsv(folder / "unlabelled.tsv", [row for row in sets.train if row[0] not in known], labels=False)
    parts = {"train": train, "dev": subset(sets.dev, CHOOSING), "movie": sets.test}
    for name, rows in (parts | {"product": sets.product, "news": sets.news}).items():
        write_tsv(folder / f"{name}.tsv", rows)


def sampled(folder: Path, data: Path, source: str, labelled: int, unlabelled: int = 0) -> None:
    """Write rows of a task: the first ones of a seeded shuffle."""
    head, *lines = (data / source / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    random.Random(0).shuffle(lines)
    kept = [_named(line, source) for line in lines[:labelled]]
    (folder / "train.tsv").write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    if unlabelled:
        text = head.split("\t").index("sentence" if "sentence" in head.split("\t") else "text")
        rest = lines[labelled : labelled + unlabelled]
        write_tsv(folder / "unlabelled.tsv", [(line.split("\t")[text], "") for line in rest], labels=False)


def noisy(folder: Path, data: Path, source: str, labelled: int, share: float = 0.2) -> None:
    """Write rows of a task with a share of their labels changed to another class, the same rows each time."""
    sampled(folder, data, source, labelled)
    head, *lines = (folder / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    columns = head.split("\t")
    rows = [(cells[0], cells[columns.index("label")]) for cells in (line.split("\t") for line in lines)]
    classes, draw = sorted({label for _, label in rows}), random.Random(1)
    for index in draw.sample(range(len(rows)), round(share * len(rows))):
        text, label = rows[index]
        rows[index] = text, draw.choice([other for other in classes if other != label])
    write_tsv(folder / "train.tsv", rows)


def copies(folder: Path, data: Path, pairs: bool) -> None:
    """Write four copies of each row, of MRPC, or of movies-500 behind its own texts; none has the text of a test."""
    rows, made = (data / "glue/MRPC" if pairs else WORK / "movies-500"), folder / "unlabelled.jsonl"
    held = ("dev", "test") if pairs else ("movie", "product", "news")
    options = AugmentOptions(
        train=[str(rows / "train.tsv")],
        unlabelled=[] if pairs else [str(rows / "unlabelled.tsv")],
        test=[f"{name}={rows / name}.tsv" for name in held],
        output=str(made),
        how=["drop", "splice"],
    )
    augment(options, print)
    if not pairs:
        _, *plain = (rows / "unlabelled.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
        texts = [{"text": text} for text in plain] + [json.loads(line) for line in made.open(encoding="utf-8")]
        made.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in texts), encoding="utf-8")


def random_encoder(folder: Path, _data: Path) -> None:
    """Write the encoder with random weights, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(encoder_folder())).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(folder)


def _named(line: str, source: str) -> str:
    """Return a row of SST-2 with the name of its class, as the test files of this task have it."""
    row, _, label = line.rpartition("\t")
    return f"{row}\t{('negative', 'positive')[int(label)]}" if source == "glue/SST-2" else line


#: Name of a set of rows -> function that writes them into a folder.
TASKS: dict[str, Callable[[Path, Path], None]] = {
    "movies": partial(movies, labelled=3000),
    "movies-500": partial(movies, labelled=500),
    "SST-2-7k": partial(sampled, source="glue/SST-2", labelled=7000),
    "SST-2-500": partial(sampled, source="glue/SST-2", labelled=500, unlabelled=UNLABELLED),
    "TREC-500": partial(sampled, source="other/TREC", labelled=500, unlabelled=UNLABELLED),
    "TREC-noise": partial(noisy, source="other/TREC", labelled=4952),
    "SST-2-7k-noise": partial(noisy, source="glue/SST-2", labelled=7000),
    "MRPC-copies": partial(copies, pairs=True),
    "movies-copies": partial(copies, pairs=False),
    "random-encoder": random_encoder,
}


def main(data: Path, names: list[str]) -> None:
    """Write the named rows, or all, and link the encoder."""
    for name in names or list(TASKS):
        (WORK / name).mkdir(parents=True, exist_ok=True)
        TASKS[name](WORK / name, data)
        print(f"written: {WORK / name}")
    encoder = WORK / "encoder"
    if not encoder.exists():
        encoder.symlink_to(encoder_folder(), target_is_directory=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=SHARED, metavar="DIR", help="folder with glue/SST-2 and other/TREC"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(TASKS)}")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in TASKS]:
        parser.error(f"expected names out of {', '.join(TASKS)}, got {unknown[0]}")
    main(asked.data, asked.names)
