"""Each weight of a loaded model comes from its files, or it is part of a new head that is going to be trained."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForMaskedLM, BertModel, ModernBertConfig, RobertaConfig, RobertaForSequenceClassification

from models.families.table import FAMILIES, make_model
from railkd import TeacherCache, make_student
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.models import Checkpoint, load_classifier
from tiny import bert_config, make_tokenizer, save, text_rows, weights_of
from tiny import make_model as make_bert

Weights = dict[str, Tensor]
#: Each loads a checkpoint that is used as it is, or that a student starts from.
LOADS: dict[str, Callable[[Path], Any]] = {
    "teacher": load_classifier,
    "to train": lambda folder: load_classifier(folder, num_labels=2),
    "student": lambda folder: make_student(folder, 2),
    "check": lambda folder: Checkpoint.find(folder).check_weights(),
}
by_load = pytest.mark.parametrize("load", LOADS.values(), ids=list(LOADS))


def edited(source: Path, target: Path, change: Callable[[Weights], Weights]) -> Path:
    folder = Path(shutil.copytree(source, target))
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    return folder


def renamed(start: str) -> Callable[[Weights], Weights]:
    return lambda weights: {start + name: value for name, value in weights.items()}


def replaced(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {name: change(weights[name].clone())}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def spoiled(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[3] = value
        return tensor

    return change


WORDS, BIAS = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.3.output.dense.bias"
DAMAGE: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "compiled": (renamed("_orig_mod."), "start with '_orig_mod.'.*torch.compile"),
    "parallel": (renamed("module."), "start with 'module.'.*DistributedDataParallel"),
    "distiller": (renamed("student."), "start with 'student.'.*Distiller"),
    "both": (renamed("module._orig_mod."), "start with 'module.'"),
    "another model": (renamed("roberta."), f"missing: .*without a place in the model: roberta.{'bert'}"),
    "a block is missing": (without("layer.1."), r"missing: bert.encoder.layer.1\..* and 13 more"),
    "one bias is missing": (without("layer.3.output.dense.bias"), f"missing: {BIAS}"),
    "no embeddings": (without("word_embeddings"), f"missing: {WORDS}"),
    "a fifth block": (
        lambda w: w | {n.replace("layer.3.", "layer.4."): v.clone() for n, v in w.items() if "layer.3." in n},
        r"without a place in the model: bert.encoder.layer.4\.",
    ),
    "a longer vocabulary": (replaced(WORDS, lambda w: torch.cat([w, w[:3]])), f"another shape: {WORDS}"),
    "a narrower bias": (replaced(BIAS, lambda w: w[:5]), rf"another shape: {BIAS} \(5,\) and \(16,\)"),
    "not a number": (replaced(BIAS, spoiled(float("nan"))), f"NaN or infinite: {BIAS}"),
    "infinite": (replaced(WORDS, spoiled(float("-inf"))), f"NaN or infinite: {WORDS}"),
}


@by_load
@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_do_not_fit_are_refused_by_name(
    damage: str, load: Callable[[Path], Any], tmp_path: Path, teacher_folder: Path
) -> None:
    change, said = DAMAGE[damage]
    folder = edited(teacher_folder, tmp_path / "model", change)
    if damage == "a fifth block" and load is LOADS["student"]:
        assert make_student(folder, 2).num_parameters()  # blocks that are not chosen do not matter to a student
        return
    with pytest.raises(RailkdError, match=said):
        load(folder)


@pytest.mark.parametrize("lost", ["classifier", "classifier.bias", "pooler"])
def test_a_head_may_be_new_only_where_training_follows(
    lost: str, tmp_path: Path, teacher_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = edited(teacher_folder, tmp_path / "model", without(lost))
    for load in (LOADS["teacher"], LOADS["check"]):
        with pytest.raises(RailkdError, match=rf"missing: .*{lost}.*Fix: fine-tune it first"):
            load(folder)
    with pytest.raises(RailkdError, match="Fix: fine-tune it first"):
        TeacherCache.build(folder, text_rows(4), tmp_path / "cache")
    assert caplog.text == ""
    Checkpoint.find(folder).check_weights(new_head=True)
    body = load_file(folder / "model.safetensors")
    for load in (LOADS["to train"], lambda folder: make_student(folder, 4)):
        caplog.clear()
        model = load(folder)
        assert "The head is new" in caplog.text and lost in caplog.text
        assert all(torch.equal(model.state_dict()[name], value) for name, value in body.items())


def test_a_pretrained_model_gets_a_new_head_and_a_trained_one_keeps_its_own(
    tmp_path: Path, teacher_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in (BertModel, BertForMaskedLM):
        folder = save(tmp_path / kind.__name__, kind(bert_config()), make_tokenizer())
        with pytest.raises(RailkdError, match="Fix: fine-tune it first"):
            load_classifier(folder)
        caplog.clear()
        assert load_classifier(folder, num_labels=3).num_labels == 3 and "The head is new" in caplog.text
    caplog.clear()
    load_classifier(teacher_folder, num_labels=2)
    make_student(teacher_folder, 2)
    assert caplog.text == ""


def test_a_pooler_that_the_model_does_not_use_is_no_fault(tmp_path: Path) -> None:
    names = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = RobertaForSequenceClassification(RobertaConfig(**names, intermediate_size=32, max_position_embeddings=66))
    extra = {"roberta.pooler.dense.weight": torch.zeros(16, 16), "roberta.pooler.dense.bias": torch.zeros(16)}
    folder = edited(save(tmp_path / "model", model), tmp_path / "with", lambda weights: weights | extra)
    assert load_classifier(folder).num_labels == 2 and make_student(folder, 1).num_labels == 2


# ---- files -------------------------------------------------------------------------------------


def as_pickle(folder: Path, target: Path, kind: str = "file") -> Path:
    """Return a copy of a model whose weights are in pytorch_model.bin, in one file or two shards."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    if kind == "file":
        torch.save(weights, target / "pytorch_model.bin")
        return target
    names = sorted(weights)
    shards = {"pytorch_model-00001.bin": names[::2], "pytorch_model-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: weights[name] for name in part}, target / file)
    place = {name: file for file, part in shards.items() for name in part}
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return target


@pytest.mark.parametrize("kind", ["file", "shards"])
def test_only_the_files_that_transformers_reads_count(kind: str, tmp_path: Path, teacher_folder: Path) -> None:
    folder = as_pickle(teacher_folder, tmp_path / "model", kind)
    before = Checkpoint.find(folder).digest
    # None of these is read, whatever it holds.
    save_file({"x": torch.ones(2)}, folder / "head.safetensors")
    (folder / "pytorch_model_old.bin").write_bytes(b"not weights")
    checkpoint, wanted = Checkpoint.find(folder), load_classifier(teacher_folder)
    assert checkpoint.digest == before and "head.safetensors" not in {path.name for path in checkpoint.weights}
    for model in (checkpoint.model(), make_student(folder, 4)):
        assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in model.state_dict().items())
    changed = checkpoint.weights[-1]
    weights = torch.load(changed, weights_only=True)
    weights[max(weights)] = weights[max(weights)] + 1
    torch.save(weights, changed)
    assert Checkpoint.find(folder).digest != before


def test_a_cache_notices_that_its_teachers_pickle_changed(tmp_path: Path, teacher_folder: Path) -> None:
    folder = as_pickle(teacher_folder, tmp_path / "model")
    save_file({"x": torch.ones(2)}, folder / "head.safetensors")
    TeacherCache.build(folder, text_rows(4), tmp_path / "cache")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(replaced(BIAS, lambda w: w + 1)(weights), folder / "pytorch_model.bin")
    with pytest.raises(RailkdError, match="other teacher weights"):
        TeacherCache.build(folder, text_rows(4), tmp_path / "cache")


class Evil:
    """Unpickles by making a folder, as an attacker's object would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def foreign(folder: Path, kind: str) -> Path:
    """Write weights that are a pickle of something else, or no weights at all, and return the file."""
    weights = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    values: dict[str, Any] = {
        "evil": weights | {"more": Evil(folder / "ran")},
        "model": make_bert(2),
        "list": list(weights.values()),
        "nested": {"state_dict": weights, "epoch": 3},
        "number": 7,
    }
    if kind in values:
        torch.save(values[kind], file)
    elif kind == "evil raw pickle":
        file.write_bytes(pickle.dumps(Evil(folder / "ran")))
    else:
        data = pickle.dumps({}) if kind == "raw pickle" else b"version https://git-lfs.github.com/spec/v1\n"
        file.write_bytes(b"" if kind == "empty" else data)
    return file


FOREIGN = ["evil", "evil raw pickle", "model", "list", "nested", "number", "empty", "lfs pointer"]


@by_load
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_pickle_of_anything_but_tensors_is_refused_and_never_run(
    kind: str, load: Callable[[Path], Any], tmp_path: Path, teacher_folder: Path
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    foreign(folder, kind)
    with pytest.raises(RailkdError, match="'pytorch_model.bin' of .* is damaged, or a pickle of more") as refusal:
        load(folder)
    assert "weights_only" not in str(refusal.value) and not (folder / "ran").exists()


@by_load
@pytest.mark.parametrize("length", [0, 5, 200, -40])
def test_damaged_safetensors_are_refused(
    length: int, load: Callable[[Path], Any], tmp_path: Path, teacher_folder: Path
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(RailkdError, match="'model.safetensors' of .* is damaged. Fix: "):
        load(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "is not an index of weight files"),
        ('{"weight_map": ["a.safetensors"]}', "is not an index of weight files"),
        ('{"weight_map": {"w": "lost.safetensors"}}', "not in its folder: lost.safetensors"),
        ('{"weight_map": {"w": "../config.json"}}', "not in its folder: ../config.json"),
        ('{"weight_map": {}}', "names weight files that are not in its folder"),
    ],
)
def test_an_index_that_names_no_shards_of_the_folder_is_refused(
    index: str, said: str, tmp_path: Path, teacher_folder: Path
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(RailkdError, match=said):
        Checkpoint.find(folder)


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path, teacher_folder: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(RailkdError, match="holds an adapter.*Fix: merge"):
        Checkpoint.find(folder)


def test_weights_of_another_user_are_refused_before_anything_is_loaded(tmp_path: Path, teacher_folder: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    (folder / "model.safetensors").chmod(0o600)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o055)
    for name in ("model.safetensors", "config.json"):
        (folder / name).chmod(0o000)
        assert refusal_of(folder).startswith(f"no permission to read '{folder / name}' (owner "), name
        (folder / name).chmod(0o644)
    assert refusal_of(folder) == ""


def refusal_of(folder: Path) -> str:
    """Return the refusal of a checkpoint that a process without privileges finds; empty: it is found."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            Checkpoint.find(folder)
        except RailkdError as error:
            said = str(error)
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


# ---- every verb ----------------------------------------------------------------------------------


DATA = "--train train.jsonl --max-length 16"
VERBS = {
    "evaluate": "evaluate --model bad --test train.jsonl",
    "predict": "predict --model bad --test train.jsonl",
    "check": f"check --teacher bad --student-layers 2 {DATA}",
    "check of a student": f"check --teacher good --student bad {DATA}",
    "cache": f"cache --teacher bad {DATA} --cache cache",
    "distill": f"distill --teacher bad --student-layers 2 {DATA} --live --output out",
    "distill with a student": f"distill --teacher good --student bad {DATA} --cache unused --output out",
    "finetune": f"finetune --model bad {DATA} --output out",
}
FAULTS = {
    "a block is missing": "weights missing: bert.encoder.layer.1.",
    "compiled": "'_orig_mod.'",
    "not a number": "NaN or infinite",
    "evil": "a pickle of more than named tensors",
}


@pytest.fixture(scope="module", params=FAULTS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with rows, a good model and a damaged one, and what must be said of it."""
    folder = tmp_path_factory.mktemp("verbs")
    good = save(folder / "good", make_bert(), make_tokenizer())
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text_rows(8)))
    if request.param == "evil":
        foreign(Path(shutil.copytree(good, folder / "bad")), "evil")
    else:
        edited(good, folder / "bad", DAMAGE[request.param][0])
    return folder, FAULTS[request.param]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_weights_that_do_not_fit(
    verb: str, place: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, said = place
    monkeypatch.chdir(folder)
    assert main(VERBS[verb].split()) == 2
    error = capsys.readouterr().err
    assert said in error and "weights_only" not in error and "Traceback" not in error, error
    assert not (folder / "cache" / "manifest.json").exists() and not (folder / "unused").exists()


# ---- students --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [[2, 4], "even", "last"], ids=str)
def test_a_norm_that_the_first_block_cannot_have_is_said(
    keep: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ModernBERT's first block has no norm in front. Block 1 as the student's first block loses nothing."""
    teacher = make_model(FAMILIES["modernbert"])
    assert isinstance(teacher.config, ModernBertConfig)
    for source in (teacher, save(tmp_path / "teacher", teacher), save(tmp_path / "bare", teacher.model)):
        caplog.clear()
        make_student(source, 2, keep)
        said = [line for line in caplog.messages if "has no place for" in line]
        assert len(said) == 1 and "layers.0.attn_norm.weight" in said[0] and "block" in said[0]
    caplog.clear()
    make_student(teacher, 2, [1, 3])
    assert caplog.messages == []


def test_a_weight_that_no_block_of_the_student_has_is_refused(tmp_path: Path, teacher_folder: Path) -> None:
    """Unlike ModernBERT's norm, this one is in all blocks, the first included: the config is of another model."""
    extra = "bert.encoder.layer.{}.output.gate.weight"
    folder = edited(teacher_folder, tmp_path / "m", lambda w: w | {extra.format(i): torch.ones(2) for i in range(4)})
    with pytest.raises(RailkdError, match=r"without a place in the model: bert.encoder.layer.1.output.gate"):
        make_student(folder, 2)
    assert weights_of(make_student(teacher_folder, 2))
