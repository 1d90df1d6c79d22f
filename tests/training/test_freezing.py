"""Frozen parts keep their weights, cost no gradient and no optimizer state, and resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from models.families.table import FAMILIES, make_model
from railkd import DistillationTrainer, DistillationTrainingArguments
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.models.blocks import block_lists
from railkd.models.freezing import freeze
from railkd.objectives import METHODS
from railkd.records import RunRecord
from railkd.teacher import TeacherCache
from tiny import make_model as make_bert
from tiny import make_small, make_trainer, save, weights_of


def frozen_of(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_embeddings_are_what_comes_before_the_blocks_of_every_family(family: str) -> None:
    model = make_model(FAMILIES[family])
    freeze(model, ["embeddings"])
    names, table = frozen_of(model), model.get_input_embeddings().weight
    assert not table.requires_grad and any(parameter.requires_grad for parameter in model.parameters())
    for path, blocks in block_lists(model).items():
        assert not [name for name in names if path in name and ".embed" not in name], path
        assert all(parameter.requires_grad for parameter in blocks.parameters())
    norms = [
        name for name, _ in model.named_parameters() if "embeddings.LayerNorm" in name or "embeddings.norm" in name
    ]
    assert set(norms) <= names


@pytest.mark.parametrize("family", ["bert", "xlm", "t5", "albert-two-groups"])
def test_a_block_is_frozen_as_a_whole_and_alone(family: str) -> None:
    model = make_model(FAMILIES[family])
    freeze(model, ["2"])
    depth = model.config.num_hidden_layers  # more than its modules where these run several times
    second = [blocks[len(blocks) // depth] for blocks in block_lists(model).values()]
    assert frozen_of(model) == {
        name
        for name, parameter in model.named_parameters()
        if any(parameter is own for block in second for own in block.parameters())
    }


def test_blocks_that_share_weights_are_counted_as_they_run() -> None:
    model = make_model(FAMILIES["albert"])  # one block, which runs several times
    freeze(model, ["2"])
    assert frozen_of(model) == {name for name, _ in model.named_parameters() if "albert_layer_groups" in name}


def train(
    folder: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, resume: Path | None = None, **settings: Any
) -> DistillationTrainer:
    student = make_small(make_bert(4, seed=11))
    options = {"method": "rail-kd-l", "save_strategy": "steps", "save_steps": 5, "freeze": ["embeddings", "2"]}
    trainer = make_trainer(folder, cache, rows, tokenizer, student=student, **options | settings)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def test_frozen_parts_stay_without_gradient_and_optimizer_state_and_resume_exactly(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    before = weights_of(make_small(make_bert(4, seed=11)))
    whole = train(tmp_path / "whole", cache, rows, tokenizer)
    after = weights_of(whole.model.student)
    frozen = {name for name in before if "embeddings" in name or "encoder.layer.1." in name}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    named = dict(whole.model.student.named_parameters())
    assert frozen == frozen_of(whole.model.student) and all(named[name].grad is None for name in frozen)
    held = {id(parameter) for group in whole.optimizer.param_groups for parameter in group["params"]}
    assert not held & {id(named[name]) for name in frozen}
    assert held == {id(parameter) for parameter in whole.model.parameters() if parameter.requires_grad}
    resumed = train(tmp_path / "resumed", cache, rows, tokenizer, tmp_path / "whole" / "checkpoint-5")
    ours, theirs = weights_of(resumed.model), weights_of(whole.model)
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []


def test_recommended_is_kd_with_frozen_embeddings_unless_told_otherwise(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    recommended = train(tmp_path / "r", cache, rows, tokenizer, method="recommended", freeze=None)
    same = train(tmp_path / "k", cache, rows, tokenizer, method="kd", freeze=["embeddings"])
    other = train(tmp_path / "o", cache, rows, tokenizer, method="recommended", freeze=["1"])
    assert recommended.args.freeze == ["embeddings"] and other.args.freeze == ["1"]
    ours, theirs = weights_of(recommended.model), weights_of(same.model)
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
    assert METHODS["recommended"].recipe["freeze"] == ["embeddings"]  # a run does not change the table


def test_freezing_nothing_that_a_method_moves_changes_the_others_only_through_the_frozen(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    """The first step of the parts that are trained is that of a run that freezes nothing."""
    sgd = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.01, "max_grad_norm": 0.0, "save_strategy": "no"}
    free = weights_of(train(tmp_path, cache, rows, tokenizer, freeze=None, **sgd).model)
    held = weights_of(train(tmp_path, cache, rows, tokenizer, **sgd).model)
    start = weights_of(make_small(make_bert(4, seed=11)))
    for name, value in free.items():
        part = name.removeprefix("student.")
        wanted = start[part] if "embeddings" in name or "encoder.layer.1." in name else value
        torch.testing.assert_close(held[name], wanted, atol=1e-7, rtol=1e-5, msg=name)


@pytest.mark.parametrize("names", [["head"], ["embeddings", "0"], ["-1"], [""], ["1.0"]])
def test_unknown_parts_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(RailkdError, match="Expected embeddings or .* to freeze, got"):
        DistillationTrainingArguments(output_dir=str(tmp_path), freeze=names)
    with pytest.raises(RailkdError, match="block numbers from 1 to 4 to freeze, got '5'"):
        freeze(make_bert(4), ["5"])


def test_a_command_says_and_records_what_it_freezes(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "base", make_bert(3), tokenizer)
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "".join(f"a film {'so ' * i}\t{i % 2}\n" for i in range(8)))
    words = ["finetune", "--model", "base", "--train", "rows.tsv", "--epochs", "1", "--no-bf16"]
    words = [str(tmp_path / word) if word in ("base", "rows.tsv") else word for word in words]
    assert main([*words, "--output", str(tmp_path / "out"), "--freeze", "embeddings,3"]) == 0
    assert "frozen: embeddings, 3: " in capsys.readouterr().err
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert record.start == {"frozen": ["embeddings", "3"]} and record.config["freeze"] == ["embeddings", "3"]
    model = make_bert(3)
    freeze(model, ["embeddings", "3"])
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert record.sizes["trained"] == trained < record.sizes["parameters"]
    assert main([*words, "--output", str(tmp_path / "out2"), "--freeze", "4"]) == 2
    assert "from 1 to 3 to freeze, got '4'" in capsys.readouterr().err and not (tmp_path / "out2").exists()
