"""The options about how a teacher cache stores states, and those of copying a cache."""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.option import option

STATES_DTYPES = ["float16", "float32", "int8"]


@dataclass
class ComponentOptions:
    """How much of each state a cache stores."""

    states_dim: int | None = option(
        "store this many principal components of each state, for a smaller cache (default: whole states; of a cache "
        "that is there: its own)",
        metavar="N",
        group="teacher cache",
    )


@dataclass
class NewCacheOptions(ComponentOptions):
    """How a cache that a job builds stores the states."""

    cache_dtype: str | None = option(
        "number format of the states in a new cache (default: float16; of a cache that is there: its own)",
        choices=STATES_DTYPES,
        group="teacher cache",
    )


@dataclass
class PassOptions(ComponentOptions):
    """How a teacher pass runs and stores states."""

    dtype: str = option("number format of the stored states (also --cache-dtype)", "float16", choices=STATES_DTYPES)
    batch_size: int | None = option("the most rows in a batch (default: no limit but --batch-tokens)", metavar="N")
    batch_tokens: int | None = option(
        "the most tokens in a batch; halved if memory runs out (default: 2,048 on a CPU, 32,768 elsewhere)", metavar="N"
    )
    bf16: bool | None = option("run the teacher in bfloat16 (default: if the hardware is fast at it)")


@dataclass
class CachePullOptions:
    """Options of ``railkd cache pull``: copy a cache from a folder or the hub, or add its rows to the one here."""

    place: str | None = option(
        "folder, or data set of the hub such as org/name, that a push has written", metavar="PLACE", required=True
    )
    cache: str | None = option(
        "folder of the cache here; created, or grown by rows of the same teacher", metavar="DIR", required=True
    )
    quiet: bool = option("print the results only", False)


@dataclass
class CachePushOptions:
    """Options of ``railkd cache push``: copy a cache to a folder or the hub."""

    place: str | None = option(
        "folder, or data set of the hub such as org/name, that gets the copy", metavar="PLACE", required=True
    )
    cache: str | None = option("folder of the cache", metavar="DIR", required=True)
    private: bool | None = option(
        "make the repository private if this push creates it (default: public, or as its organisation sets)"
    )
    quiet: bool = option("print the results only", False)
