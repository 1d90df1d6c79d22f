"""The manifest of a cache as a value.

A manifest may come from an untrusted source: `railkd.runtime.typed` checks its types when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from railkd.signals import checked_poolings
from railkd.teacher.identity import Identity
from railkd.teacher.protocol import Count, TeacherInfo


def _known(poolings: tuple[str, ...]) -> tuple[str, ...]:
    checked_poolings(poolings)
    return poolings


@dataclass(frozen=True)
class File:
    """A file of the cache.

    Attributes:
        file: its name.
        bytes: its size.
        header_crc: CRC-32 of its header.
    """

    file: str
    bytes: Count
    header_crc: Count


@dataclass(frozen=True)
class ShardFile(File):
    """A shard; see `railkd.teacher.shards`.

    Attributes:
        rows: how many it holds.
    """

    rows: Count


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``, its version and checksum aside.

    Attributes:
        teacher: what a student must know of the teacher.
        identity: what the stored numbers depend on.
        poolings: stored for every row.
        rows: how many.
        index: of the rows by key.
        shards: the rows, in this order.
    """

    teacher: TeacherInfo
    identity: Identity
    poolings: Annotated[tuple[str, ...], AfterValidator(_known)]
    rows: Count
    index: File
    shards: tuple[ShardFile, ...]
