"""A cache of principal components: the best projection of the states, the same for rows that come later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.signals import BlockShape
from railkd.teacher import TeacherCache
from railkd.teacher.components import Components, fit_components, sample_of
from railkd.teacher.exchange import pull, push
from railkd.teacher.places import FolderPlace
from teacher.made import keys_of, read_all, rows_read
from tiny import CountingBert, make_model, make_trainer, text_rows


def test_the_components_lose_least_of_the_states() -> None:
    """What is lost are the smallest eigenvalues of E[h h^T]: no other projection on 3 numbers loses less."""
    rng = torch.Generator().manual_seed(1)
    states = torch.randn(50, 2, 6, generator=rng) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.1]) + 2
    parts = [{"mean": states[:20]}, {"mean": states[20:]}]
    found = fit_components(lambda: parts, ("mean",), BlockShape(2, 6), 3, "t")
    kept = found.project({"mean": states})["mean"].double()
    for block in range(2):
        v = torch.from_numpy(found.by_pooling["mean"][block]).double()  # (6, 3)
        h = states[:, block].double()
        torch.testing.assert_close(v.T @ v, torch.eye(3).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(kept[:, block], h @ v, atol=1e-5, rtol=1e-5)
        lost = (h - kept[:, block] @ v.T).square().sum(1).mean()
        eigenvalues = torch.linalg.eigvalsh(h.T @ h / len(h))
        torch.testing.assert_close(lost, eigenvalues[:3].sum(), atol=1e-5, rtol=1e-4)
    again = fit_components(lambda: parts, ("mean",), BlockShape(2, 6), 3, "t")
    assert again.digest == found.digest and again.content == found.content


@pytest.mark.parametrize(("rows", "dim"), [(10, 3), (5000, 3), (9, 500)])
def test_a_sample_is_spread_over_the_keys_whatever_their_order(rows: int, dim: int) -> None:
    keys = np.random.default_rng(rows).integers(-(2**62), 2**62, (rows, 2))
    chosen = sample_of(keys, BlockShape(2, 8), dim)
    assert len(chosen) == len(set(chosen.tolist())) == min(rows, 4096)
    order = np.random.default_rng(1).permutation(rows)
    other = sample_of(keys[order], BlockShape(2, 8), dim)
    assert set(map(tuple, keys[chosen])) == set(map(tuple, keys[order][other]))


@pytest.fixture
def small(tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any) -> TeacherCache:
    return rows_read(counting, rows, tmp_path / "small", tokenizer, dtype="float32", states_dim=3)[1]


def components_of(cache: TeacherCache) -> np.ndarray:
    (path,) = cache.path.glob("components-*.safetensors")
    return Components.read(path).by_pooling["mean"]


def test_a_cache_of_components_holds_projected_states_and_grows_by_the_same_ones(
    tmp_path: Path, small: TeacherCache, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    options: dict[str, Any] = {"dtype": "float32", "states_dim": 3}
    assert small.info.shape == (2, 3) and "2 blocks of 3 principal components in float32" in small.described
    more, whole = text_rows(30, seed=8), tmp_path / "whole"
    exact = rows_read(counting, rows, whole, tokenizer, dtype="float32")[1]
    exact = rows_read(counting, more, whole, tokenizer, dtype="float32")[1]
    v = components_of(small)
    count, grown = rows_read(counting, more, small.path, tokenizer, **options)
    assert count == grown.rows - 22 and (components_of(grown) == v).all()
    for table in (rows, more):
        want, got = (read_all(cache, table, tokenizer, ("mean",)) for cache in (exact, grown))
        np.testing.assert_allclose(got["mean"], np.einsum("rnd,ndk->rnk", want["mean"], v), atol=1e-4)
        np.testing.assert_allclose(got["logits"], want["logits"], atol=1e-5)
    grown.verify()
    (small.path / "manifest.json").unlink()  # an unfinished build goes on
    count, again = rows_read(counting, more, small.path, tokenizer, **options)
    assert count == 0 and (components_of(again) == v).all() and again.rows == grown.rows
    with pytest.raises(RailkdError, match="states_dim is 3 in the cache, not given here"):
        rows_read(counting, rows, small.path, tokenizer, dtype="float32")
    with pytest.raises(RailkdError, match="states_dim is not given in the cache, 3 here"):
        rows_read(counting, rows, whole, tokenizer, **options)
    fresh = rows_read(counting, more, small.path, tokenizer, overwrite=True, **options)[1]
    assert not (components_of(fresh) == v).all()  # fitted on these rows


@pytest.mark.parametrize(
    "options", [{"states_dim": 8}, {"states_dim": 0}, {"states_dim": 3, "pooling": "none"}], ids=str
)
def test_components_that_cannot_be_are_refused(
    options: dict[str, Any], tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    with pytest.raises(
        RailkdError, match="Expected states_dim from 1 to 7, fewer than a state's 8 numbers, and a pooling"
    ):
        rows_read(counting, rows, tmp_path / "c", tokenizer, **options)
    assert not (tmp_path / "c").exists()


def test_components_travel_with_the_cache(
    tmp_path: Path, small: TeacherCache, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    there = FolderPlace(tmp_path / "copy")
    push(small.path, there)
    assert "2 blocks of 3 principal components, float32" in (there.folder / "README.md").read_text()
    pull(there, tmp_path / "mine")
    mine = rows_read(counting, text_rows(30, seed=8), tmp_path / "mine", tokenizer, dtype="float32", states_dim=3)[1]
    assert (components_of(mine) == components_of(small)).all()
    push(mine.path, there)
    assert pull(there, small.path).rows == mine.rows
    other = rows_read(counting, text_rows(9, seed=3), tmp_path / "other", tokenizer, dtype="float32", states_dim=3)[1]
    with pytest.raises(RailkdError, match="other principal components, which were fitted on other rows"):
        pull(there, other.path)
    (path,) = there.folder.glob("components-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RailkdError, match="its content is not what its name says"):
        pull(there, tmp_path / "new")


def test_methods_that_learn_states_number_by_number_refuse_components(
    tmp_path: Path, small: TeacherCache, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    student = make_model(2, width=8, dropout=0.0)
    trainer = make_trainer(
        tmp_path, small, rows, tokenizer, student=student, method="rail-kd-w", shared_size=3, max_steps=1
    )
    trainer.train()
    keys = {KEY: torch.from_numpy(keys_of(rows, tokenizer))}
    assert small(keys, "mean").states.shape == (22, 2, 3)  # type: ignore[union-attr]
    cls = rows_read(counting, rows, tmp_path / "cls", tokenizer, pooling="cls", states_dim=3)[1]
    for method in ("pkd-skip", "alp-kd", "last-block"):
        with pytest.raises(RailkdError, match=f"Expected whole states for {method}.*take one of ckd, .*rail-kd-w"):
            make_trainer(tmp_path, cls, rows, tokenizer, student=make_model(2, width=8), method=method)


class Slow(CountingBert):
    """Meets another process at its first batch: the one that fits the components."""

    meets: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        work, self.meets = self.meets, None
        if work is not None:
            work()
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("finished", [True, False])
def test_a_build_goes_on_with_the_components_that_another_has_stored_meanwhile(
    finished: bool, tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    options: dict[str, Any] = {"dtype": "float32", "states_dim": 3}
    more, path = text_rows(30, seed=8), tmp_path / "both"
    slow = Slow(counting.config)
    slow.load_state_dict(counting.state_dict())

    def other() -> None:
        rows_read(counting, rows, path, tokenizer, **options)
        if not finished:
            (path / "manifest.json").unlink()

    slow.meets = other
    cache = rows_read(slow.eval(), more, path, tokenizer, **options)[1]
    alone = rows_read(counting, rows, tmp_path / "alone", tokenizer, **options)[1]
    assert (components_of(cache) == components_of(alone)).all()
    grown = rows_read(counting, more, alone.path, tokenizer, **options)[1]
    for table in (rows, more):
        got, want = (read_all(one, table, tokenizer, ("mean",))["mean"] for one in (cache, grown))
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_one_row_is_too_few_to_fit_on(tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any) -> None:
    before = counting.rows_read
    with pytest.raises(RailkdError, match="Expected at least 2 rows to fit principal components on, got 1"):
        rows_read(counting, rows.select([0]), tmp_path / "c", tokenizer, states_dim=3)
    assert counting.rows_read == before and not (tmp_path / "c").exists()


def test_a_cache_without_its_components_is_not_opened(small: TeacherCache) -> None:
    for path in small.path.glob("components-*"):
        path.unlink()
    with pytest.raises(RailkdError, match="lacks its file 'components-"):
        TeacherCache.open(small.path)
