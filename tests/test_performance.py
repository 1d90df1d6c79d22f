"""The work that the measurements in performance/ time: prepared as in a fresh clone, without data beside it."""

from __future__ import annotations

from pathlib import Path

import work

from railkd.models.checkpoints import Checkpoint


def test_a_clone_without_sst2_draws_from_the_demos_sentences(tmp_path: Path) -> None:
    rows, name = work.sample(64, tmp_path / "missing.tsv")
    assert name == "the demo's movie sentences" and len(rows) == 64
    assert {row["label"] for row in rows} == {0, 1} and all(row["text"].strip() for row in rows)
    assert work.sample(64, tmp_path / "missing.tsv") == (rows, name)


def test_a_clone_with_sst2_draws_from_it(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("sentence\tlabel\na dull film\t0\na fine film\t1\n")
    rows, name = work.sample(9, file)
    assert name == "SST-2"
    assert sorted(rows, key=lambda row: row["label"]) == [
        {"text": "a dull film", "label": 0},
        {"text": "a fine film", "label": 1},
    ]


def test_the_prepared_folder_holds_rows_settings_and_both_models(tmp_path: Path) -> None:
    settings = work.prepare(tmp_path, "minilm", 8)
    rows, read = work.read(tmp_path)
    assert read == settings and len(rows) == settings["sentences"] == 8
    for name, blocks in zip(("teacher", "student"), settings["blocks"], strict=True):
        assert Checkpoint.find(tmp_path / name).config.num_hidden_layers == blocks
