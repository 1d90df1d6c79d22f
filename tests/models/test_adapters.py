"""A LoRA adapter is merged into a copy of its model, and gives the outputs that peft gives."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint

# Of transformers, when peft asks a model whether it saves memory.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


def adapter(folder: Path, config: Any, weights: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        save_file(weights, folder / "adapter_model.safetensors")
    return folder


HEAD = {"base_model.model.classifier.weight": torch.zeros(2, 16)}


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ("{", HEAD, "adapter_config.json cannot be read"),
        ("[1]", HEAD, "expected a mapping in adapter_config.json, got list"),
        ({}, HEAD, "does not name its model"),
        ({"base_model_name_or_path": ["x"]}, HEAD, "does not name its model"),
        ({"base_model_name_or_path": "{here}"}, HEAD, "which is an adapter too. Fix: merge"),
        ({"base_model_name_or_path": "x/y"}, None, "without adapter_model.safetensors. Fix: save it again"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    config: Any, weights: dict[str, torch.Tensor] | None, message: str, tmp_path: Path
) -> None:
    text = (config if isinstance(config, str) else json.dumps(config)).replace("{here}", str(tmp_path / "it"))
    folder = adapter(tmp_path / "it", text, weights)
    with pytest.raises(RailkdError, match=message):
        Checkpoint.find(folder)


def test_without_peft_the_command_that_installs_it_is_named(
    teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # Python's own mark of a package that cannot be imported
    folder = adapter(tmp_path / "it", {"base_model_name_or_path": str(teacher_folder)}, HEAD)
    files = tiny.write_files(tmp_path, {"a.tsv": "text\tlabel\ngood\tpos\nbad\tneg\n"})
    assert main(["evaluate", "--model", str(folder), "--test", str(files / "a.tsv")]) == 2
    assert "needs the package peft. Fix: pip install 'railkd[peft]'" in capsys.readouterr().err


@pytest.fixture
def peft() -> Any:
    if importlib.util.find_spec("peft") is None:
        tiny.missing("peft is not installed: pip install 'railkd[peft]'")
    import peft

    return peft


def trained(peft: Any, model: Any, folder: Path, base: str, **more: Any) -> Any:
    """Save an adapter whose weights are random, as if it had been trained, and return the model with it."""
    torch.manual_seed(0)
    settings = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"], **more}
    found = peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False, **settings))
    found.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return found.eval()


def test_a_merged_adapter_gives_the_outputs_of_peft(peft: Any, teacher_folder: Path, tmp_path: Path) -> None:
    theirs = trained(peft, Checkpoint.find(teacher_folder).model(), tmp_path / "it", str(teacher_folder))
    found = Checkpoint.find(tmp_path / "it")
    batch = found.tokenizer(["the film is good", "bad plot"], padding=True, return_tensors="pt")
    with torch.no_grad():
        mine, wanted, before = (
            model(**batch).logits for model in (found.model(), theirs, Checkpoint.find(teacher_folder).model())
        )
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(mine, before, atol=1e-3)
    assert found.labels == ("neg", "pos") and str(found) == str(tmp_path / "it")
    again = Path(shutil.copytree(tmp_path / "it", tmp_path / "copy"))
    assert Checkpoint.find(again).digest == found.digest and Checkpoint.find(again).folder != found.folder


def test_an_adapter_may_have_other_classes_than_its_model(
    peft: Any, teacher_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Checkpoint.find(teacher_folder).model(new_head=True, num_labels=3)
    trained(peft, model, tmp_path / "it", str(teacher_folder))
    caplog.clear()
    assert Checkpoint.find(tmp_path / "it").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("railkd")]
    assert len(said) == 1 and "and brings the head: it is merged into a copy of that model" in said[0]
    names = {"0": "bad", "1": "so", "2": "good"}
    again = Path(shutil.copytree(tmp_path / "it", tmp_path / "copy"))
    (again / "config.json").write_text(json.dumps({"id2label": names}))
    found = Checkpoint.find(again)
    other = Path(shutil.copytree(tmp_path / "it", tmp_path / "other"))
    (other / "config.json").write_text(json.dumps({"id2label": {"a": "bad", "1": "so", "2": "good"}}))
    with pytest.raises(RailkdError, match="expected the keys 0 to 2 in id2label of its config.json, got 'a', '1'"):
        Checkpoint.find(other)
    assert found.labels == ("bad", "so", "good") and found.model().classifier.weight.shape == (3, 16)


def test_an_adapter_of_another_model_or_without_a_head_is_refused(
    peft: Any, teacher_folder: Path, tmp_path: Path
) -> None:
    trained(peft, Checkpoint.find(teacher_folder).model(), tmp_path / "it", str(tmp_path / "gone"))
    with pytest.raises(RailkdError, match="is an adapter of '.*gone', which cannot be loaded: no model at"):
        Checkpoint.find(tmp_path / "it")
    wide = tiny.make_model(width=32)
    tiny.save(tmp_path / "wide", wide, Checkpoint.find(teacher_folder).tokenizer)
    trained(peft, wide, tmp_path / "other", str(teacher_folder))
    with pytest.raises(RailkdError, match="does not fit its model '.*' .*Fix: give the folder of the adapter"):
        Checkpoint.find(tmp_path / "other")
    bare = Path(shutil.copytree(teacher_folder, tmp_path / "bare"))
    model = Checkpoint.find(bare).model()
    model.bert.save_pretrained(bare)
    trained(peft, model.bert, tmp_path / "headless", str(bare), task_type="FEATURE_EXTRACTION")
    with pytest.raises(RailkdError, match=r"headless' does not fit its model .*, and brings no head"):
        Checkpoint.find(tmp_path / "headless")
