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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from railkd.cli.demo.archive import Row
from railkd.cli.demo.data import SentimentSets, sentiment_sets, subset, write_tsv
from railkd.cli.demo.model import encoder_folder
from railkd.cli.demo.table import Line, markdown_table, rich_table
from railkd.data.sources import SELECTION_SET
from railkd.errors import RailkdError, RunFailed
from railkd.export.layout import Shipped, onnx_size, require_onnx
from railkd.jobs.options import CacheOptions, DistillOptions, FinetuneOptions, Say
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.shipping_options import ExportOptions
from railkd.records import RunRecord
from railkd.runtime.hardware import limited_threads
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
        max_drop: accuracy that the int8 file may lose, in points: what so many test rows can show.
        estimate: run time in words.
    """

    train: int
    unlabelled: int
    dev: int
    test: int
    teacher_epochs: int
    student_epochs: int
    max_drop: float
    estimate: str


SIZES = {
    "quick": Size(480, 480, 200, 200, 2, 1, 3.0, "about a minute"),
    "normal": Size(3000, 10**9, 500, 1000, 2, 3, 1.0, "five to eight minutes"),
    "full": Size(10**9, 0, 10**9, 10**9, 3, 4, 1.0, "about a quarter of an hour"),
}


def main(*, quick: bool = False, full: bool = False, output: str = "runs/demo", quiet: bool = False) -> list[Line]:
    """Run the demo and write its table to ``output`` as results.md and results.json.

    Args:
        quick: use the size "quick".
        full: use the size "full"; neither means "normal".
        output: folder of data, models and results.
        quiet: print the table only.

    Returns:
        The lines of the table: the teacher, the students, and the best student as int8 if railkd[onnx] is installed.
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
    chosen: dict[str, float] = {}
    for method in METHODS:
        record = _student(method, folder, data, steps, quiet)
        path = RunFolder(folder / method).model("distill")
        lines.append(_line(method, path, record, teacher, data, pass_seconds if method != "finetune" else 0.0))
        say(f"  {method}: movie accuracy {lines[-1].movie:.3f}")
        chosen[method] = record.metrics[SELECTION_SET]["accuracy"]
    best = max(chosen, key=lambda method: chosen[method])
    lines += _int8(lines[1 + METHODS.index(best)], lines[0], folder, data, size, say, quiet)
    lines = _timed(lines, folder, data["movie"])
    _write_results(lines, folder, size, name)
    Console().print(rich_table(lines))
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
    for path in [*ledger.foreign(folder / name for name in names), *Shipped(folder / "shipped").foreign()][:1]:
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
    """Return the line of a model, with its size; `_timed` adds its latency."""
    from railkd.models.checkpoints import Checkpoint

    loaded = Checkpoint.find(path).model()
    accuracy = {name: record.metrics[name]["accuracy"] for name in TESTS}
    return Line(
        model=model,
        parameters=sum(parameter.numel() for parameter in loaded.parameters()),
        megabytes=sum(file.stat().st_size for file in path.glob("*.safetensors")) / 1e6,
        latency_ms=0.0,
        **accuracy,
        kept=accuracy["movie"] / teacher.metrics["movie"]["accuracy"],
        teacher_pass_s=pass_seconds,
        training_s=record.seconds["training"],
    )


def _int8(
    student: Line, teacher: Line, folder: Path, data: dict[str, Path], size: Size, say: Say, quiet: bool
) -> list[Line]:
    """Ship the best student, and return the line of its int8 file; nothing without railkd[onnx] or if a gate fails."""
    try:
        require_onnx()
    except RailkdError as error:
        say(f"int8: not made. {error}")
        return []
    from railkd.jobs.export import export

    shipped = Shipped(folder / "shipped")
    run, dropped = str(folder / student.model), size.max_drop
    options = ExportOptions(
        model=run,
        output=str(shipped.path),
        int8=True,
        eval=[f"{name}={data[name]}" for name in TESTS],  # not the dev rows: 500 are too few to pass by one point
        max_drop=dropped,
        max_class_drop=3 * dropped,
        overwrite=True,
        quiet=quiet,
    )
    say(f"int8: {student.model}, the best on the dev rows, through the gates of railkd export")
    try:
        record = export(options, _silent)
    except RunFailed as error:
        say(f"  {error}")
        return []
    drops = {gate["name"]: gate["lines"][0]["drop"]["drop"] for gate in record["int8"]["gates"]}
    bound = 100 * record["int8"]["together"]["lines"][0]["drop"]["bound"]
    say(f"  int8: loses at most {bound:.2f} points of accuracy with 95 % confidence (allowed: {dropped:g})")
    accuracy = {name: getattr(student, name) - drops[name] for name in TESTS}
    line = replace(student, **accuracy, model="int8", teacher_pass_s=0.0, training_s=0.0)
    megabytes = onnx_size(shipped.int8) / 1e6
    return [replace(line, megabytes=megabytes, kept=line.movie / teacher.movie)]


def _timed(lines: list[Line], folder: Path, file: Path, sentences: int = 40) -> list[Line]:
    """Return the lines with the median milliseconds for one sentence, by one thread, tokenisation included.

    All models take each sentence in turn, so that the load of the machine affects them alike.
    """
    import torch

    models = [_runnable(line.model, folder) for line in lines]
    times = [list[float]() for _ in lines]
    texts = [line.split("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()[1 : sentences + 1]]
    with torch.inference_mode(), limited_threads(1):
        for text in texts[:5] + texts:  # the first five warm up and do not count
            for (run, tokenizer), taken in zip(models, times, strict=True):
                start = time.perf_counter()
                run(tokenizer(text, truncation=True, max_length=64, return_tensors="pt"))
                taken.append(time.perf_counter() - start)
    medians = [1000 * statistics.median(taken[5:]) for taken in times]
    return [replace(line, latency_ms=median) for line, median in zip(lines, medians, strict=True)]


def _runnable(name: str, folder: Path) -> tuple[Callable[[Any], Any], Any]:
    """Return a function that runs a model of the table on a batch, and its tokenizer."""
    from railkd.models.checkpoints import Checkpoint

    if name == "int8":
        from railkd.export.session import OnnxModel

        shipped = OnnxModel(Shipped(folder / "shipped").int8, threads=1)
        return shipped.run, shipped.checkpoint.tokenizer
    run = RunFolder(folder / name)
    checkpoint = Checkpoint.find(run.model("distill" if name in METHODS else "finetune"))
    model = checkpoint.model().eval()
    return lambda batch: model(**batch), checkpoint.tokenizer


def _write_results(lines: list[Line], folder: Path, size: Size, name: str) -> None:
    from railkd.runtime.environment import versions
    from railkd.runtime.files import write_json, write_text

    write_text(folder / "results.md", markdown_table(lines))
    results = {
        "size": name,
        "settings": asdict(size),
        "seed": SEED,
        "models": [asdict(line) for line in lines],
        "versions": versions(),
    }
    write_json(folder / "results.json", results)
