"""States that the first release read from the wrong place of a model are refused, and all others are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from railkd.errors import RailkdError
from railkd.teacher import CacheWriter, TeacherCache
from railkd.teacher.identity import Identity
from teacher.made import INFO, identity, signals

POOLINGS = ("mean", "cls")
#: Family -> the poolings whose old states are wrong.
WRONG = {
    "bert": (),
    "llama": (),
    "t5": (),
    "bloom": ("cls",),
    "openai-gpt": ("cls",),
    "qwen3_next": ("cls",),
    "xlm": POOLINGS,
    "flaubert": POOLINGS,
}


class OfTheFirstRelease(Identity):
    """An identity whose digest is the same for every pooling, as that of the first release was."""

    def digest(self, poolings: Sequence[str] = ()) -> str:
        return super().digest()


def write(folder: Path, mine: Identity, poolings: Sequence[str], *, start: int = 0) -> TeacherCache:
    keys, logits, states = signals(5, start=start)
    with CacheWriter(folder, INFO, mine, poolings) as writer:
        writer.add(keys, logits, {name: states[name] for name in poolings})
    return TeacherCache.open(folder)


def of(kind: type[Identity], family: str, blocks: str | None = None) -> Identity:
    return kind(**vars(identity(config={"model_type": family}, blocks=blocks)))


@pytest.mark.parametrize("family", WRONG)
def test_old_states_are_refused_where_they_are_wrong_and_new_ones_are_read(tmp_path: Path, family: str) -> None:
    old = write(tmp_path / "old", of(OfTheFirstRelease, family), POOLINGS)
    new = write(tmp_path / "new", of(Identity, family), POOLINGS)
    for pooling in POOLINGS:
        new.gather(signals(5)[0], pooling)
        if pooling not in WRONG[family]:
            old.gather(signals(5)[0], pooling)
            continue
        with pytest.raises(RailkdError, match=f"holds {pooling} states that an earlier release .* of a {family}. Fix"):
            old.check_pooling(pooling)
        with pytest.raises(RailkdError, match="an earlier release"):
            old.gather(signals(5)[0], pooling)
    assert old.identity.differences(new.identity) == []  # the outputs of both are equal
    old.gather(signals(5)[0], None)


@pytest.mark.parametrize("family", WRONG)
@pytest.mark.parametrize("poolings", [(), ("mean",), ("cls",), POOLINGS])
def test_an_old_cache_grows_where_its_states_are_right(tmp_path: Path, family: str, poolings: tuple[str, ...]) -> None:
    write(tmp_path, of(OfTheFirstRelease, family), poolings)
    if set(poolings) & set(WRONG[family]):
        with pytest.raises(RailkdError, match="release of railkd"):
            write(tmp_path, of(Identity, family), poolings, start=5)
    else:
        assert write(tmp_path, of(Identity, family), poolings, start=5).rows == 10


def test_named_blocks_were_read_where_they_are(tmp_path: Path) -> None:
    old = write(tmp_path, of(OfTheFirstRelease, "xlm", blocks="transformer.layer_norm2.*"), ("mean",))
    old.gather(signals(5)[0], "mean")
