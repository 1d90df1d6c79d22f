"""The private names of transformers that railkd uses: a release that drops or changes one fails here, in words."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest
import torch
from transformers import Trainer

from railkd.training import DistillationTrainer

#: Private methods of Trainer that railkd overrides or calls -> their parameters after ``self``; None: any.
METHODS: dict[str, list[str] | None] = {
    "_finalize_training": None,
    "_get_dataloader": ["dataset", "description", "batch_size", "sampler_fn", "is_training", "dataloader_key"],
    "_get_eval_sampler": ["eval_dataset"],
    "_get_grad_norm": ["model", "grad_norm"],
    "_get_num_items_in_batch": ["batch_samples", "device"],
    "_get_output_dir": ["trial"],
    "_get_train_sampler": ["train_dataset"],
    "_load_best_model": [],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_prepare_inputs": ["inputs"],
    "_run_epoch": None,
    "_save": ["output_dir", "state_dict"],
    "_save_checkpoint": ["model", "trial"],
    "_save_optimizer_and_scheduler": ["output_dir"],
    "_save_rng_state": ["output_dir"],
    "_save_scaler": ["output_dir"],
    "_set_signature_columns_if_needed": [],
}
#: Private attributes of Trainer that railkd reads or sets -> what they are.
ATTRIBUTES = {
    "_globalstep_last_logged": "the step of the last line of the log",
    "_signature_columns": "the columns that reach the collator",
    "_total_loss_scalar": "the sum of the losses of all logged steps",
    "_tr_loss": "the sum of the losses since the last line of the log, on the device",
    "_train_batch_size": "rows of a batch on one rank",
}
#: Methods of Trainer that its loop must call for an override to count -> where from.
CALLED_BY = {
    "_get_grad_norm": "_run_epoch",
    "_get_num_items_in_batch": "get_batch_samples",
    "_prepare_inputs": "training_step",
    "training_step": "_run_epoch",
}


def names_of(source: str) -> set[str]:
    """Attributes of ``self`` and ``super()`` in a source."""
    found = set()
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            found |= {node.attr} if owner in ("self", "super()") else set()
    return found


OURS = inspect.getsource(DistillationTrainer)
DEFINED = {name for name, value in vars(DistillationTrainer).items() if inspect.isfunction(value)}
OVERRIDDEN = sorted(name for name in DEFINED if hasattr(Trainer, name) and name != "__init__")
SET_BY_TRAINER = names_of(inspect.getsource(Trainer))


@pytest.mark.parametrize("name", METHODS)
def test_a_private_method_of_trainer_is_there_with_its_parameters(name: str) -> None:
    method: Any = getattr(Trainer, name, None)
    assert method is not None, f"transformers has no Trainer.{name} any more: railkd overrides or calls it"
    given = list(inspect.signature(method).parameters)[1:]
    assert METHODS[name] in (None, given), f"Trainer.{name} takes {given}; railkd was written for {METHODS[name]}"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_private_attribute_of_trainer_is_there(name: str) -> None:
    assert name in SET_BY_TRAINER, f"transformers' Trainer has no {name} any more; it was {ATTRIBUTES[name]}"


@pytest.mark.parametrize("name", CALLED_BY)
def test_trainer_calls_what_is_overridden(name: str) -> None:
    caller = getattr(Trainer, CALLED_BY[name])
    assert name in names_of(inspect.getsource(caller)), f"Trainer.{CALLED_BY[name]} does not call {name} any more"


def test_every_private_name_of_trainer_that_railkd_uses_is_listed() -> None:
    used = {name for name in names_of(OURS) | DEFINED if name.startswith("_") and not name.startswith("__")}
    theirs = {name for name in used if hasattr(Trainer, name) or name in SET_BY_TRAINER}
    assert theirs == METHODS.keys() | ATTRIBUTES.keys()


def test_the_docstring_has_every_override_and_nothing_else() -> None:
    table = (DistillationTrainer.__doc__ or "").partition("Overrides:")[2]
    rows = [line.split("`")[1] for line in table.splitlines() if line.strip().startswith("- `")]
    assert sorted(rows) == OVERRIDDEN and len(OVERRIDDEN) > 15


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad])
def test_fused_optimizers_of_torch_say_that_they_take_the_flag_of_a_step_to_leave_out(optimizer: Any) -> None:
    weight = torch.ones(3, requires_grad=True)
    fused = optimizer([weight], lr=0.1, fused=True)
    assert fused._step_supports_amp_scaling, f"{optimizer.__name__}: railkd would read every gradient norm"
    for flag, moved in ((1.0, False), (0.0, True)):
        fused.grad_scale, fused.found_inf = None, torch.tensor(flag)
        weight.grad = torch.full((3,), float("nan") if flag else 1.0)
        fused.step()
        assert bool((weight != 1).all()) == moved and bool(weight.isfinite().all())
