"""Run the demo: distil a real teacher into small students within minutes, and compare them in one table.

Every student starts from the same weights (blocks 1, 3 and 6 of the teacher) and takes the same number of steps. All
but fine-tuning also learn the teacher's answers to sentences whose labels are withheld (none with --full). The dev rows
pick the best epoch, never the test rows.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from railkd.cli.demo.archive import Row
from railkd.cli.demo.data import SentimentSets, sentiment_sets, subset, write_tsv
from railkd.cli.demo.model import encoder_folder
from railkd.errors import RailkdError
from railkd.jobs.options import CacheOptions, DistillOptions, FinetuneOptions, Say
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.records import RunRecord
from railkd.runtime.ownership import Ledger
from railkd.runtime.words import duration

METHODS = ("finetune", "kd", "rail-kd-l", "recommended")
TESTS = ("movie", "product", "news")
SEED, BATCH = 0, 32


@dataclass(frozen=True)
class Size:
    """The size of a demo.

    Attributes:
        train: number of training rows.
        unlabelled: largest number of further training texts, without labels.
        dev: number of rows that pick the epoch.
        test: number of rows of each test set.
        teacher_epochs: epochs of the teacher.
        student_epochs: epochs of each student, counted in steps over the labelled rows.
        estimate: run time in words.
    """

    train: int
    unlabelled: int
    dev: int
    test: int
    teacher_epochs: int
    student_epochs: int
    estimate: str


SIZES = {
    "quick": Size(480, 480, 200, 200, 2, 1, "about a minute"),
    "normal": Size(3000, 10**9, 500, 1000, 2, 3, "five to eight minutes"),
    "full": Size(10**9, 0, 10**9, 10**9, 3, 4, "about a quarter of an hour"),
}


@dataclass(frozen=True)
class Line:
    """One model in the table of results.

    Attributes:
        model: "teacher", or the method of the student.
        parameters: number of parameters.
        megabytes: size of the weights on disk.
        latency_ms: median milliseconds for one sentence on this machine.
        movie: test accuracy on movie sentences, from 0 to 1.
        product: test accuracy on product sentences.
        news: test accuracy on news sentences.
        kept: movie accuracy divided by that of the teacher.
        teacher_pass_s: seconds of the teacher pass; 0 for a model that needs none.
        training_s: seconds of training.
    """

    model: str
    parameters: int
    megabytes: float
    latency_ms: float
    movie: float
    product: float
    news: float
    kept: float
    teacher_pass_s: float
    training_s: float


def main(*, quick: bool = False, full: bool = False, output: str = "runs/demo", quiet: bool = False) -> list[Line]:
    """Run the demo and write its table to ``output`` as results.md and results.json.

    Args:
        quick: use the size "quick".
        full: use the size "full"; neither means "normal".
        output: folder of data, models and results.
        quiet: print the table only.

    Returns:
        The lines of the table: the teacher, then the students.
    """
    name = "quick" if quick else "full" if full else "normal"
    size = SIZES[name]
    console = Console(stderr=True)

    def say(text: str) -> None:
        if not quiet:
            console.print(text, highlight=False, markup=False)

    start = time.perf_counter()
    say(f"railkd demo ({name}): {size.estimate} on two CPU cores, after the first download")
    folder = Path(output)
    _claim(folder)
    data = _write_data(sentiment_sets(), size, folder / "data", say)
    teacher = _teacher(folder, data, size, say, quiet)
    pass_seconds = _cache(folder, data, say, quiet)
    lines = [_line("teacher", RunFolder(folder / "teacher").model("finetune"), teacher, teacher, data, 0.0)]
    steps = size.student_epochs * math.ceil(len(data["train"].read_text(encoding="utf-8").splitlines()[1:]) / BATCH)
    for method in METHODS:
        record = _student(method, folder, data, steps, quiet)
        path = RunFolder(folder / method).model("distill")
        lines.append(_line(method, path, record, teacher, data, pass_seconds if method != "finetune" else 0.0))
        say(f"  {method}: movie accuracy {lines[-1].movie:.3f}")
    _write_results(lines, folder, size, name)
    Console().print(_rich_table(lines))
    say(
        f"Finished after {duration(time.perf_counter() - start)}. With one seed, differences of a point or two can be "
        f"chance. The table is in {folder}/results.md and results.json.\n"
        "On your own data:\n"
        "  railkd distill --teacher YOUR_MODEL --student-layers 3 --train train.tsv \\\n"
        "      --eval dev.tsv --test test.tsv --method recommended --unlabelled more.tsv --output out/"
    )
    return lines


def _claim(folder: Path) -> None:
    """Put the files of the demo on the list of those that railkd wrote, and refuse to replace any others."""
    ledger = Ledger(folder)
    names = [*(f"data/{name}.tsv" for name in ("train", "unlabelled", "dev", *TESTS)), "results.md", "results.json"]
    for path in ledger.foreign(folder / name for name in names)[:1]:
        raise RailkdError(f"'{path}' was not written by this demo and would be replaced. Fix: name another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    ledger.add(*names)


def _write_data(sets: SentimentSets, size: Size, folder: Path, say: Say) -> dict[str, Path]:
    """Write a tsv file for each part of the data. Return name -> file."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[Row, ...]] = {
        "train": subset(sets.train, size.train),
        "dev": subset(sets.dev, size.dev),
        "movie": subset(sets.test, size.test),
        "product": subset(sets.product, size.test),
        "news": subset(sets.news, size.test),
    }
    known = set(parts["train"])
    more = [row for row in sets.train if row not in known][: size.unlabelled]
    say(
        f"data: {len(parts['train']):,} movie sentences to train on, {len(more):,} more without their labels, "
        f"{len(parts['dev']):,} to pick the epoch; tests: {', '.join(f'{n} {len(parts[n]):,}' for n in TESTS)} "
        "(product and news: out of domain)"
    )
    files = {name: write_tsv(folder / f"{name}.tsv", rows) for name, rows in parts.items()}
    return files | ({"unlabelled": write_tsv(folder / "unlabelled.tsv", more, labels=False)} if more else {})


def _teacher(folder: Path, data: dict[str, Path], size: Size, say: Say, quiet: bool) -> RunRecord:
    """Fine-tune the teacher."""
    from railkd.jobs import finetune

    options = FinetuneOptions(
        model=str(encoder_folder()),
        train=str(data["train"]),
        eval=str(data["dev"]),
        test=[f"movie={data['movie']}"],
        ood=[f"{name}={data[name]}" for name in ("product", "news")],
        output=str(folder / "teacher"),
        overwrite=True,
        max_length=64,
        quiet=quiet,
    )
    say("teacher: all-MiniLM-L6-v2, 6 blocks, fine-tuned")
    training = {"num_train_epochs": size.teacher_epochs, "learning_rate": 1e-4, "seed": SEED}
    heads = logging.getLogger("railkd.models.heads")
    heads.setLevel(logging.ERROR)  # an encoder gets a new head, which is not worth a warning here
    try:
        record = finetune.finetune(Request(options, training), _silent)
    finally:
        heads.setLevel(logging.NOTSET)
    say(f"  teacher: movie accuracy {record.metrics['movie']['accuracy']:.3f}")
    return record


def _cache(folder: Path, data: dict[str, Path], say: Say, quiet: bool) -> float:
    """Build the teacher cache. Return the seconds it took."""
    from railkd.jobs import cache

    start = time.perf_counter()
    options = CacheOptions(
        teacher=str(RunFolder(folder / "teacher").model("finetune")),
        train=[str(data[name]) for name in ("train", "unlabelled") if name in data],
        cache=str(folder / "cache"),
        max_length=64,
        overwrite=True,
        quiet=quiet,
    )
    cache.build_cache(options, say)
    return time.perf_counter() - start


def _student(method: str, folder: Path, data: dict[str, Path], steps: int, quiet: bool) -> RunRecord:
    """Train a student by one method, for a number of steps."""
    from railkd.jobs import distill

    options = DistillOptions(
        teacher=str(RunFolder(folder / "teacher").model("finetune")),
        student_layers=3,
        train=str(data["train"]),
        unlabelled=str(data["unlabelled"]) if "unlabelled" in data else None,
        eval=str(data["dev"]),
        test=[f"movie={data['movie']}"],
        ood=[f"{name}={data[name]}" for name in ("product", "news")],
        cache=str(folder / "cache"),
        output=str(folder / method),
        overwrite=True,
        max_length=64,
        quiet=quiet,
    )
    training = {"method": method, "max_steps": steps, "learning_rate": 1e-4, "seed": SEED}
    return distill.distill(Request(options, training), _silent)


def _silent(_: str) -> None:
    pass


def _line(
    model: str, path: Path, record: RunRecord, teacher: RunRecord, data: dict[str, Path], pass_seconds: float
) -> Line:
    """Return the line of a model, with its size and latency measured here."""
    from railkd.models.checkpoints import Checkpoint

    checkpoint = Checkpoint.find(path)
    loaded = checkpoint.model()
    accuracy = {name: record.metrics[name]["accuracy"] for name in TESTS}
    return Line(
        model=model,
        parameters=sum(parameter.numel() for parameter in loaded.parameters()),
        megabytes=sum(file.stat().st_size for file in path.glob("*.safetensors")) / 1e6,
        latency_ms=_latency(loaded, checkpoint.tokenizer, data["movie"]),
        **accuracy,
        kept=accuracy["movie"] / teacher.metrics["movie"]["accuracy"],
        teacher_pass_s=pass_seconds,
        training_s=record.seconds["training"],
    )


def _latency(model: Any, tokenizer: Any, file: Path, sentences: int = 40) -> float:
    """Return the median milliseconds for a batch of one sentence, tokenisation included."""
    import torch

    texts = [line.split("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()[1 : sentences + 1]]
    model.eval()
    times = []
    with torch.inference_mode():
        for text in texts[:5] + texts:  # the first five runs warm up and do not count
            start = time.perf_counter()
            model(**tokenizer(text, truncation=True, max_length=64, return_tensors="pt"))
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[5:])


_COLUMNS: tuple[tuple[str, Callable[[Line], str]], ...] = (
    ("model", lambda line: line.model),
    ("params", lambda line: f"{line.parameters / 1e6:.1f} M"),
    ("MB", lambda line: f"{line.megabytes:.0f}"),
    ("ms", lambda line: f"{line.latency_ms:.1f}"),
    ("movie", lambda line: f"{line.movie:.3f}"),
    ("product", lambda line: f"{line.product:.3f}"),
    ("news", lambda line: f"{line.news:.3f}"),
    ("kept", lambda line: f"{100 * line.kept:.1f}%"),
    ("cache", lambda line: f"{line.teacher_pass_s:.0f} s" if line.teacher_pass_s else "-"),
    ("train", lambda line: f"{line.training_s:.0f} s"),
)
_LEGEND = (
    "MB: size on disk. ms: latency of one sentence on this machine, tokenisation included. movie, product, news: test "
    "accuracy; product and news are out of domain. kept: movie accuracy as a share of the teacher's. cache: the single "
    "teacher pass, which all students share."
)


def _rich_table(lines: list[Line]) -> Table:
    table = Table(caption=_LEGEND, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name, _ in _COLUMNS:
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(show(line) for _, show in _COLUMNS), end_section=line.model == "teacher")
    return table


def _write_results(lines: list[Line], folder: Path, size: Size, name: str) -> None:
    from railkd.runtime.environment import versions
    from railkd.runtime.files import write_json, write_text

    rows = [[show(line) for _, show in _COLUMNS] for line in lines]
    header = [column for column, _ in _COLUMNS]
    markdown = [header, ["---"] * len(header), *rows]
    write_text(folder / "results.md", "\n".join(f"| {' | '.join(row)} |" for row in markdown) + f"\n\n{_LEGEND}\n")
    results = {
        "size": name,
        "settings": asdict(size),
        "seed": SEED,
        "models": [asdict(line) for line in lines],
        "versions": versions(),
    }
    write_json(folder / "results.json", results)
