"""What two ranks do, for `test_ranks.py`: ``torchrun --nproc-per-node 2 two_ranks.py FOLDER``.

One launch for all of it, since every start costs seconds: cache, distill and evaluate through the command line, plain
fully_shard over a Distiller, and at the end a rank that dies.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
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
from railkd import Distiller, job, ranks
from railkd.cli import distill, main
from railkd.cli.verb import talker

FILES = ["--train", "train.tsv", "--max-length", 16, "--quiet"]
TRAINING = ["--student-layers", 2, "--shared-size", 8, "--epochs", 2, "--learning-rate", "0.1", "--no-bf16"]
# Not Adam: it makes steps of full size out of rounding, for the key bias, whose true gradient is zero.
TRAINING += ["--optim", "sgd"]
TRAINING += ["--eval", "dev.tsv", "--logging-steps", 2, "--cache", "cache", "--teacher", "teacher", "--use-cpu"]
TRAINING += ["--save-steps", 3, "--allow-weak-teacher"]


def railkd(*words: object, callback: Any = None) -> int:
    def run(options: Any, training: dict[str, Any]) -> None:
        job.distill(options, training, talker(options.quiet), [callback] if callback else [])

    return main([str(word) for word in words], {"distill": dataclasses.replace(distill.VERB, run=run)})


class Witness(TrainerCallback):
    """Writes down the weights of the whole distiller as this rank has them, undrawn maps included; or dies."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at

    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if state.global_step == self.dies_at and ranks.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: object) -> None:
        safetensors.torch.save_file(model.state_dict(), f"weights-{ranks.rank()}.safetensors")


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
    whole = {name: value.clone() for name, value in get_model_state_dict(distiller, options=options).items()}
    if ranks.first():
        plain = {name.removeprefix("student."): value for name, value in whole.items() if name.startswith("student.")}
        fresh = tiny.make_model(2, width=8, seed=2, dropout=0.0)
        fresh.load_state_dict(plain)
        tiny.save(Path("sharded"), fresh)
    doubled = {name: value * 2 if value.is_floating_point() else value for name, value in whole.items()}
    set_model_state_dict(distiller, dict(doubled), options=options)
    back = get_model_state_dict(distiller, options=options)
    assert [name for name in doubled if not torch.equal(back[name], doubled[name])] == []


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.chdir(sys.argv[1])
    assert railkd("cache", "--teacher", "teacher", *FILES, "--cache", "cache", "--batch-size", 5, "--no-bf16") == 0
    assert railkd("distill", *FILES, *TRAINING, "--batch-size", 4, "--output", "out", callback=Witness()) == 0
    assert railkd("evaluate", "--model", "out/student", "--test", "dev.tsv", "--output", "scores.json") == 0
    sharded()
    Path(f"done-{ranks.rank()}").touch()
    railkd("distill", *FILES, *TRAINING, "--batch-size", 4, "--output", "dead", callback=Witness(dies_at=2))
