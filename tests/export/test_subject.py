"""The rows of the gates: each is tokenised and answered once, and some of them stand for all lengths."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from railkd.data.tokens import keyed_tokens
from railkd.jobs.shipping import Subject
from railkd.models.inference import predict_logits
from tiny import make_model, make_tokenizer, text_rows


def subject(*counts: int) -> Subject:
    tables: dict[str, Any] = {
        f"set {number}": SimpleNamespace(rows=text_rows(count, seed=number)) for number, count in enumerate(counts)
    }
    return Subject(make_model(1), make_tokenizer(), None, tables, 64)  # type: ignore[arg-type] # no gate is asked


def test_the_answers_are_those_of_each_table_in_its_order() -> None:
    found = subject(30, 20)
    parts = [predict_logits(found.model, found.tokenizer, t.rows, max_length=64) for t in found.tables.values()]
    np.testing.assert_allclose(found.reference, np.concatenate(parts), atol=1e-6)
    whole = concatenate_datasets([table.rows for table in found.tables.values()])
    own, wanted = found.tokens.inputs, keyed_tokens(whole, found.tokenizer, max_length=64).inputs
    assert own.keys() == wanted.keys() and len(own["input_ids"]) == 50
    for name, rows in own.items():
        assert [row.tolist() for row in rows] == [row.tolist() for row in wanted[name]]
    assert found.texts([49, 0]) == [(whole["text"][49],), (whole["text"][0],)]


def test_a_comparison_takes_rows_of_all_lengths_and_not_all_rows() -> None:
    found = subject(700, 500)
    lengths, rows = found.tokens.lengths, found.spread
    assert len(set(rows.tolist())) == len(rows) == 320
    assert set(lengths[rows].tolist()) == set(lengths.tolist())
    assert (lengths[rows[0]], lengths[rows[-1]]) == (lengths.min(), lengths.max())
    _, before = found.sample
    assert "reference" not in vars(found)  # the sample alone was answered
    np.testing.assert_allclose(before, found.reference[rows], atol=1e-6)
    few = subject(40)
    assert sorted(few.spread.tolist()) == list(range(40))
    assert few.spread_of(128).tolist() == few.spread.tolist()  # a small set is taken whole
    for whole, count in ((found, 320), (subject(200), 200)):
        part = [whole.spread.tolist().index(row) for row in whole.spread_of(128)]
        assert len(whole.spread) == count and len(part) == 128 and part[0] == 0
        assert set(np.diff(part)) <= {count // 128, -(-count // 128)}
