"""The work of two ranks, for `test_ranks.py`: ``LAUNCHER two_ranks.py first FOLDER``, then ``... second FOLDER``.

Two launches for all of it, since every start costs seconds; both launchers run cache, distill and evaluate through the
command line. The first ends when its launcher is terminated in the middle of a run; the second resumes that run, trains
under plain fully_shard, interrupts one rank of a run, and ends with a rank that dies.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

import tiny
from railkd import Distiller
from railkd.cli import main
from railkd.cli.verb import printer
from railkd.cli.verbs import JOBS
from railkd.jobs import distill
from railkd.jobs.request import Request
from railkd.runtime import ranks

FILES = ["--train", "train.tsv", "--max-length", 16, "--quiet"]
TRAINING = ["--student-layers", 2, "--shared-size", 8, "--epochs", 2, "--learning-rate", "0.1", "--no-bf16"]
# Not Adam: it makes steps of full size out of rounding, for the key bias, whose true gradient is zero.
TRAINING += ["--optim", "sgd"]
TRAINING += ["--eval", "dev.tsv", "--logging-steps", 2, "--cache", "cache", "--teacher", "teacher", "--use-cpu"]
TRAINING += ["--save-steps", 3, "--allow-weak-teacher", "--class-weights", "1,3", "--class-weights-on-logits"]


def railkd(*words: object, callback: Any = None) -> int:
    def run(request: Request[Any]) -> None:
        distill.distill(request, printer(request.options.quiet), [callback] if callback else [])

    return main([str(word) for word in words], {"distill": dataclasses.replace(JOBS["distill"], run=run)})


def same(*words: object, **options: Any) -> int:
    """The distillation that every run here is, in parts or as a whole."""
    return railkd("distill", *FILES, *TRAINING, "--batch-size", 4, *words, **options)


def mixed(*words: object) -> int:
    """A distillation with rows of two files without labels, one of which has a share of every batch."""
    more = ["--unlabelled", "more.tsv:0.25", "--unlabelled", "others.tsv", "--live", "--method", "kd"]
    left_out = ("--shared-size", "--cache")
    pairs = zip(["", *TRAINING], TRAINING, strict=False)
    settings = [word for before, word in pairs if word not in left_out and before not in left_out]
    return railkd("distill", *FILES, *settings, *more, *words)


class At(TrainerCallback):
    """A signal to a process, sent by one rank after a step, which waits until it has come back to it."""

    def __init__(self, step: int, rank: int, process: int, number: int) -> None:
        self.step, self.rank, self.process, self.number = step, rank, process, number

    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if state.global_step == self.step and ranks.rank() == self.rank:
            if self.number == signal.SIGKILL:
                os.kill(self.process, self.number)
            listener: Any = signal.getsignal(self.number)
            heard: list[int] = []
            signal.signal(self.number, lambda number, frame: heard.append(number))
            os.kill(self.process, self.number)
            while not heard:  # a launcher passes it on in its own time
                time.sleep(0.01)
            signal.signal(self.number, listener)
            listener(self.number, None)


class Witness(TrainerCallback):
    """Writes down the weights of the whole distiller as this rank has them, undrawn maps included."""

    def __init__(self, name: str = "weights") -> None:
        self.name = name

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: object) -> None:
        safetensors.torch.save_file(model.state_dict(), f"{self.name}-{ranks.rank()}.safetensors")


def sharded() -> None:
    """A loop of our own: the parameters are DTensors, the loss falls, the student is saved whole and loads plainly."""
    student = tiny.make_model(2, width=8, seed=1, dropout=0.0)
    distiller = Distiller.from_method("rail-kd-l", student, (4, 16), shared_size=8).train()
    for block in student.bert.encoder.layer:
        fully_shard(block)
    fully_shard(distiller)
    assert all(isinstance(parameter, DTensor) for parameter in distiller.parameters())
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-2)
    chance = torch.Generator().manual_seed(dist.get_rank())
    batch = {"input_ids": torch.randint(4, 24, (4, 6), generator=chance), "attention_mask": torch.ones(4, 6).long()}
    batch |= {"labels": torch.randint(0, 2, (4,), generator=chance), "draw": torch.tensor([1])}
    batch |= {"teacher_logits": torch.randn(4, 2, generator=chance)}
    batch |= {"teacher_states": torch.randn(4, 4, 16, generator=chance)}
    losses = []
    for _ in range(12):
        loss = distiller(**batch)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    options = StateDictOptions(full_state_dict=True)
    # FSDP's state dict may hold other values than tensors; a model's does not.
    state: Any = get_model_state_dict(distiller, options=options)
    whole: dict[str, torch.Tensor] = {name: value.clone() for name, value in state.items()}
    if ranks.is_main_process():
        plain = {name.removeprefix("student."): value for name, value in whole.items() if name.startswith("student.")}
        fresh = tiny.make_model(2, width=8, seed=2, dropout=0.0)
        fresh.load_state_dict(plain)
        tiny.save(Path("sharded"), fresh)
    doubled = {name: value * 2 if value.is_floating_point() else value for name, value in whole.items()}
    set_model_state_dict(distiller, dict(doubled), options=options)
    back: Any = get_model_state_dict(distiller, options=options)
    assert [name for name in doubled if not torch.equal(back[name], doubled[name])] == []


def first() -> None:
    """Run all of a job. Then terminate the launcher during another job; it passes the signal on to both ranks."""
    assert railkd("cache", "--teacher", "teacher", *FILES, "--cache", "cache", "--batch-size", 5, "--no-bf16") == 0
    assert same("--output", "out", callback=Witness()) == 0
    frozen = ["--output", "frozen", "--freeze", "embeddings,1", "--epochs", 1]
    assert same(*frozen, callback=Witness("frozen")) == 0
    assert mixed("--batch-size", 4, "--output", "mixed") == 0
    assert railkd("evaluate", "--model", "out/student", "--test", "dev.tsv", "--output", "scores.json") == 0
    Path(f"first-{ranks.rank()}").touch()
    code = same("--output", "stopped", callback=At(2, rank=0, process=os.getppid(), number=signal.SIGTERM))
    Path(f"code-{ranks.rank()}").write_text(str(code))


def second() -> None:
    """The stopped job is resumed."""
    assert railkd("cache", "--teacher", "teacher", *FILES, "--cache", "again", "--batch-size", 5, "--no-bf16") == 0
    assert same("--output", "stopped", "--resume") == 0
    assert railkd("evaluate", "--model", "stopped/student", "--test", "dev.tsv", "--output", "again.json") == 0
    sharded()
    code = same("--output", "stopped-too", callback=At(2, rank=1, process=os.getpid(), number=signal.SIGINT))
    Path(f"too-{ranks.rank()}").write_text(str(code))
    Path(f"second-{ranks.rank()}").touch()
    same("--output", "dead", callback=At(2, rank=1, process=os.getpid(), number=signal.SIGKILL))


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    os.chdir(sys.argv[2])
    os.umask(0o022 if os.environ["RANK"] == "0" else 0o027)  # who made a file shows in its mode
    {"first": first, "second": second}[sys.argv[1]]()
