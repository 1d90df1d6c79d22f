"""Trimming the vocabulary changes no text whose pieces all stay, and makes no text unknown."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from railkd.cli import main
from railkd.errors import RailkdError
from railkd.export.vocabulary import Trimming, plan, trim, write_tokenizer
from railkd.records import RunRecord
from tiny import make_tokenizer, save

NAMES, NUMBERS = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
KINDS = ("WordPiece", "BPE", "byte-level BPE", "Unigram")


def words(count: int, seed: int = 0) -> list[str]:
    """Made words of syllables, so that pieces of several lengths are worth learning."""
    chance = random.Random(seed)
    parts = ["ka", "to", "mi", "ren", "sul", "pa", "ver", "zi", "lon", "e", "tu", "gra"]
    return ["".join(chance.choices(parts, k=chance.randint(1, 4))) for _ in range(count)]


def texts(count: int, seed: int) -> list[str]:
    chance, known = random.Random(seed), words(400, seed % 3)
    return [" ".join(chance.choices(known, k=chance.randint(1, 9))) for _ in range(count)]


def small_bert(blocks: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=300, num_hidden_layers=blocks, id2label=NAMES, label2id=NUMBERS, **shape)
    return BertForSequenceClassification(config).eval()


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    common: dict[str, Any] = {"vocab_size": 300, "special_tokens": SPECIAL, "show_progress": False}
    made = {
        "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(**common)),
        "BPE": (models.BPE(unk_token="[UNK]"), trainers.BpeTrainer(**common)),
        "byte-level BPE": (
            models.BPE(),
            trainers.BpeTrainer(**{**common, "vocab_size": 500}, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        ),
        "Unigram": (models.Unigram(), trainers.UnigramTrainer(**common, unk_token="[UNK]")),
    }
    model, trainer = made[kind]
    rules = Tokenizer(model)
    plain, bytewise = pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.pre_tokenizer = bytewise if "byte" in kind else plain  # type: ignore[assignment]
    rules.train_from_iterator(texts(600, 0) + texts(600, 1), trainer)
    rules.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, rules.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=rules, **named)


#: A number of pieces at which about half of the texts change.
SOME = {"WordPiece": 120, "BPE": 120, "byte-level BPE": 330, "Unigram": 120}


def trimmed(tokenizer: Any, size: int | None, folder: Path) -> tuple[Trimming, Any]:
    counts = Counter(number for row in tokenizer(texts(60, 0))["input_ids"] for number in row)
    found = plan(tokenizer, counts, size)
    tokenizer.save_pretrained(folder)
    write_tokenizer(found, folder)
    return found, PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("from_data", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_whose_pieces_all_stay_are_tokenised_as_before(kind: str, from_data: bool, tmp_path: Path) -> None:
    before = tokenizer_of(kind)
    found, after = trimmed(before, None if from_data else SOME[kind], tmp_path)
    assert len(after) == len(found.kept) < len(before) == found.before
    many = texts(300, 0) + texts(300, 2) + [""]
    old, new = before(many)["input_ids"], after(many)["input_ids"]
    same = found.unchanged(old)
    assert 20 < same.sum() < len(many)
    numbers = found.new_numbers
    for row, other, stays in zip(old, new, same, strict=True):
        if stays:
            assert [numbers[number] for number in row] == other
        elif kind != "Unigram":  # the text is the same text, in smaller pieces
            joined = [
                "".join(t.convert_ids_to_tokens(ids)).replace("##", "") for t, ids in ((before, row), (after, other))
            ]
            assert joined[0] == joined[1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_becomes_unknown_that_was_not(kind: str, tmp_path: Path) -> None:
    before = tokenizer_of(kind)
    _, after = trimmed(before, 0, tmp_path)  # as few as can be
    many = [*texts(200, 2), *words(200, 5), "köln", "strange!"]
    for old, new in zip(before(many)["input_ids"], after(many)["input_ids"], strict=True):
        unknown = [t.unk_token_id in ids for t, ids in ((before, old), (after, new))]
        assert unknown[0] == unknown[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_of_such_texts_are_equal_bit_for_bit(kind: str, tmp_path: Path) -> None:
    before = tokenizer_of(kind)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=520, intermediate_size=32, pad_token_id=before.pad_token_id, **shape)
    model = BertForSequenceClassification(config).eval()
    found, after = trimmed(before, SOME[kind], tmp_path)
    small = trim(model, found)
    small.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert loaded.config.vocab_size == len(found.kept) == len(loaded.get_input_embeddings().weight)
    assert loaded.config.pad_token_id == loaded.get_input_embeddings().padding_idx == after.pad_token_id
    rows = [text for text in texts(80, 0) if found.unchanged(before([text])["input_ids"])[0]][:12]
    assert len(rows) == 12
    for part in (rows[:1], rows):
        with torch.no_grad():
            ours = model(**before(part, padding=True, return_tensors="pt")).logits
            theirs = loaded(**after(part, padding=True, return_tensors="pt")).logits
        assert torch.equal(ours, theirs)
    assert model.config.vocab_size == 520  # the model itself is as it was


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(RailkdError, match="--vocabulary: expected a tokenizer of the kind WordPiece, BPE or Unigram"):
        plan(make_tokenizer(), Counter(), 10)


def test_an_export_trims_and_says_what_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tokenizer_of("WordPiece")
    save(tmp_path / "model", small_bert(1), tokenizer)
    rows = texts(400, 0)
    lines = [f"{text}\t{['no', 'yes'][number % 2]}" for number, text in enumerate(rows)]
    (tmp_path / "dev.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    data = str(tmp_path / "dev.tsv")
    tail = ["--eval", data, "--vocabulary", "from-data", "--output", str(tmp_path / "out")]
    assert main(["export", str(tmp_path / "model"), *tail]) == 2  # its rows would choose the pieces and judge them
    assert "--vocabulary: expected a run whose training rows" in capsys.readouterr().err
    train = ["finetune", "--model", str(tmp_path / "model"), "--train", data, "--eval", data, "--epochs", "1"]
    assert main([*train, "--test", f"t={data}", "--quiet", "--output", str(tmp_path / "run")]) == 0
    model = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    words = ["export", str(tmp_path / "run"), "--eval", data]
    assert main([*words, "--vocabulary", "from-data", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "of 300 pieces stay, counted on 400 texts" in said and "0 of 400 texts are cut into smaller pieces" in said
    smaller = BertForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert smaller.config.vocab_size < 300
    with torch.no_grad():
        again = smaller(**AutoTokenizer.from_pretrained(tmp_path / "out")(rows[:50], padding=True, return_tensors="pt"))
        before = model(**tokenizer(rows[:50], padding=True, return_tensors="pt"))
    assert torch.equal(again.logits, before.logits)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["vocabulary"] == {"before": 300, "after": smaller.config.vocab_size, "texts": 400, "changed": 0}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- parameters before the vocabulary was trimmed: " in card and "scores before the vocabulary was" in card
    assert "model-index" not in card and "model-index" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_scaled_table_that_a_decoder_shares_stays_one(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("WordPiece")
    shape = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    wide = {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
    marks = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
    config = BartConfig(vocab_size=300, d_model=16, scale_embedding=True, **shape, **wide, **marks)
    torch.manual_seed(0)
    model = BartForSequenceClassification(config).eval()
    found, _ = trimmed(tokenizer, None, tmp_path)
    small = trim(model, found)
    assert small.model.encoder.embed_tokens.weight is small.model.decoder.embed_tokens.weight
    assert len(small.model.shared.weight) == len(found.kept) < 300
    old = torch.tensor([[2, *found.kept[5:12].tolist(), 3]])
    new = torch.tensor([[found.new_numbers[number] for number in old[0].tolist()]])
    with torch.no_grad():
        assert torch.equal(model(old).logits, small(new).logits)


def test_a_student_with_the_pieces_of_its_data_is_the_one_with_all_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pieces that no text has get no gradient, and the teacher's cache finds its rows by their text."""
    save(tmp_path / "teacher", small_bert(2), tokenizer_of("WordPiece"))
    rows, more = texts(50, 0), texts(20, 1)
    lines = [f"{text}\t{['no', 'yes'][number % 2]}" for number, text in enumerate(rows)]
    data, unlabelled = str(tmp_path / "train.tsv"), str(tmp_path / "more.tsv")
    Path(data).write_text("\n".join(["text\tlabel", *lines, ""]), encoding="utf-8")
    Path(unlabelled).write_text("\n".join(["text", *more, ""]), encoding="utf-8")
    files = ["--train", data, "--eval", data, "--epochs", "1", "--learning-rate", "0.01", "--no-bf16", "--quiet"]
    distill = ["distill", *files, "--teacher", str(tmp_path / "teacher"), "--student-layers", "1", "--method", "kd"]
    distill += ["--unlabelled", unlabelled, "--cache", str(tmp_path / "cache"), "--allow-weak-teacher"]
    logits, stored = [], []
    for name, flags in (("all", []), ("some", ["--vocabulary", "from-data"])):
        assert main([*distill, *flags, "--output", str(tmp_path / name)]) == 0
        stored.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")})
        student = BertForSequenceClassification.from_pretrained(tmp_path / name / "student").eval()
        tokens = AutoTokenizer.from_pretrained(tmp_path / name / "student")(rows, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits.append(student(**tokens).logits)
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-5)
    assert stored[0] == stored[1] != {}
    started = RunRecord.read(tmp_path / "some" / "metrics.json").start
    assert started["vocabulary"] == {"before": 300, "after": student.config.vocab_size, "cut": 0}
    capsys.readouterr()
    words = ["check", "--teacher", str(tmp_path / "teacher"), "--student-layers", "1", "--train", data, "--json"]
    assert main([*words, "--vocabulary", "100"]) == 0
    notes = {one["title"]: one["detail"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert "of 300 word pieces stay; " in notes["vocabulary"] and " training texts are cut" in notes["vocabulary"]
    assert main([*words, "--vocabulary", "from-data", "--unlabelled", unlabelled]) == 0
    notes = {one["title"]: one["detail"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert notes["vocabulary"].startswith(f"{student.config.vocab_size} of 300 word pieces stay; 0 training texts")
    assert len(tokens["input_ids"]) == 50 and student.config.vocab_size < 300
    assert (
        main(
            [
                "finetune",
                *files,
                "--model",
                str(tmp_path / "teacher"),
                "--vocabulary",
                "100",
                "--output",
                str(tmp_path / "f"),
            ]
        )
        == 0
    )
    noted = RunRecord.read(tmp_path / "f" / "metrics.json").start["vocabulary"]
    assert 0 < noted["cut"] <= 50 and 100 <= noted["after"] < started["vocabulary"]["after"]
