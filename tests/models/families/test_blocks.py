"""Models whose blocks a regular expression must name, and the memory that a pass keeps alive."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, FunnelConfig, XLNetConfig

from models.families.table import FAMILIES, make_model, make_tokenizer
from railkd import make_student
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.models.blocks import BlockReader, find_blocks
from railkd.teacher import LiveTeacher, TeacherCache
from tiny import LABELS, save, text_rows
from tiny import make_tokenizer as bert_tokenizer

Capture = pytest.CaptureFixture[str]
#: The blocks of Funnel's first stage, before it halves the tokens.
FIRST_STAGE = r"funnel\.encoder\.blocks\.0\.\d+"
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])


def funnel() -> Any:
    """Return a model whose blocks are in two lists of two, and whose upper half has fewer tokens."""
    torch.manual_seed(0)
    config = FunnelConfig(
        vocab_size=32, block_sizes=[2, 2], d_model=16, n_head=2, d_head=8, d_inner=32, id2label=LABELS, num_labels=2
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


@torch.no_grad()
def test_an_unreadable_model_is_refused_with_advice() -> None:
    model = funnel()
    with pytest.raises(RailkdError, match="cannot find the blocks of FunnelForSeq.*regular expression.*--teacher-blo"):
        BlockReader(model)
    with pytest.raises(RailkdError, match="is not a regular expression"):
        find_blocks(model, "layer.(")
    reader = BlockReader(
        model, blocks=r"funnel\.encoder\.blocks\.\d+\.\d+"
    )  # the upper two of these four halve the tokens
    refusal = r"states \(rows, tokens, width\).* from the block FunnelLayer, got \(2, 4, 16\)"
    with pytest.raises(RailkdError, match=refusal), reader.reading(MASK):
        model(MASK + 4, attention_mask=MASK)
    reader = BlockReader(model, blocks=FIRST_STAGE)
    with reader.reading(MASK):
        model(MASK + 4, attention_mask=MASK)
    assert reader.shape == (2, 16) and reader.states()["mean"].shape == (2, 2, 16)


@torch.no_grad()
def test_states_with_tokens_first_are_refused() -> None:
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=32, d_model=16, n_layer=2, n_head=2, d_inner=32)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    reader = BlockReader(model)
    with pytest.raises(RailkdError, match=r"from the block XLNetLayer, got \(7, 2, 16\)"), reader.reading(MASK):
        model(MASK + 4, attention_mask=MASK)


def test_blocks_named_by_a_regular_expression_are_those_found_by_structure(tmp_path: Path) -> None:
    teacher, tokenizer, rows = make_model(FAMILIES["albert"]), make_tokenizer(FAMILIES["albert"]), text_rows(6)
    pattern = r"albert\.encoder\.albert_layer_groups\.\d+"  # one module, run four times
    assert BlockReader(teacher, blocks=pattern).shape == (4, 16)
    found = TeacherCache.build(teacher, rows, tmp_path / "found", tokenizer=tokenizer)
    named = TeacherCache.build(teacher, rows, tmp_path / "named", tokenizer=tokenizer, blocks=pattern)
    assert torch.equal(found.moments().mean, named.moments().mean)
    with pytest.raises(RailkdError, match="blocks is .* in the cache, not given here"):
        TeacherCache.build(teacher, rows, tmp_path / "named", tokenizer=tokenizer)
    bert = make_model(FAMILIES["bert"])
    by_name = make_student(bert, 2, blocks=r"bert\.encoder\.layer\.\d+").state_dict()
    assert all(torch.equal(tensor, by_name[name]) for name, tensor in make_student(bert, 2).state_dict().items())


def test_the_command_line_passes_the_names_of_blocks_on(tmp_path: Path, capsys: Capture) -> None:
    teacher = save(tmp_path / "teacher", funnel(), bert_tokenizer())
    student = save(tmp_path / "student", make_model(FAMILIES["bert"], num_hidden_layers=2), bert_tokenizer())
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in text_rows(8)))
    cache = ["cache", "--teacher", str(teacher), "--train", str(train), "--cache", str(tmp_path / "cache"), "--quiet"]
    assert main(cache) == 2
    assert "--teacher-blocks" in capsys.readouterr().err
    assert main([*cache, "--blocks", FIRST_STAGE, "--dtype", "float32", "--no-bf16"]) == 0
    assert TeacherCache.open(tmp_path / "cache").info.shape == (2, 16)
    distil = ["distill", "--teacher", str(teacher), "--student", str(student), "--train", str(train), "--epochs", "1"]
    distil += ["--shared-size", "8", "--no-bf16", "--quiet", "--blocks", r"bert\.encoder\.layer\.\d+"]
    ways = {
        "cache": ["--cache", str(tmp_path / "cache")],  # the blocks were named when it was built
        "built": ["--teacher-blocks", FIRST_STAGE],
        "live": ["--teacher-blocks", FIRST_STAGE, "--live"],
    }
    found = {}
    for way, words in ways.items():
        assert main([*distil, *words, "--output", str(tmp_path / f"run-{way}")]) == 0, capsys.readouterr().err
        record = json.loads((tmp_path / f"run-{way}" / "metrics.json").read_text())
        found[way] = [entry["intermediate"] for entry in record["curve"] if "intermediate" in entry]
    assert found["cache"] == pytest.approx(found["live"], abs=1e-4) and found["built"] == pytest.approx(
        found["live"], abs=1e-2
    )
    assert main([*distil, "--live", "--teacher-blocks", "no.such", "--output", str(tmp_path / "none")]) == 2
    assert "blocks='no.such' matches no module of FunnelForSequenceClassification" in capsys.readouterr().err


@torch.no_grad()
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_pass_keeps_the_states_of_at_most_two_blocks(name: str) -> None:
    model = make_model(FAMILIES[name], num_hidden_layers=12)
    inputs = dict(make_tokenizer(FAMILIES[name])(["a film", "the plot was"], padding=True, return_tensors="pt"))
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watch(_module: Any, _inputs: Any, output: Any) -> None:
        made.append(weakref.ref(output[0] if isinstance(output, tuple) else output))
        alive.append(sum(ref() is not None for ref in made))

    handles = [block.register_forward_hook(watch) for block in find_blocks(model)]
    LiveTeacher(model).run(inputs, ("mean",))
    assert len(alive) == 12 and max(alive) <= 2
    made.clear()
    alive.clear()
    model(**inputs, output_hidden_states=True)
    assert max(alive) == 12  # so the count does see states that stay alive
    for handle in handles:
        handle.remove()
