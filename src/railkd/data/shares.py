"""Sources with a share of every batch, written ``FILE:0.3``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from railkd.data.sources import Source
from railkd.errors import RailkdError

_SHARE = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?)")


def split_share(text: str) -> tuple[str, float | None]:
    """Split ``FILE:0.3`` into the file and its share of every batch. An existing path is taken whole.

    Args:
        text: as a user writes it.

    Returns:
        The file, and the share or None.

    Raises:
        RailkdError: the share is not between 0 and 1.

    Example:
        >>> split_share("more.tsv:0.3"), split_share("glue/RTE:test"), split_share("glue/RTE:test:.25")
        (('more.tsv', 0.3), ('glue/RTE:test', None), ('glue/RTE:test', 0.25))
    """
    found = None if os.path.exists(text) else _SHARE.fullmatch(text)
    if not found:
        return text, None
    share = -1.0 if found[2].endswith("%") else float(found[2])
    if not 0 < share < 1:
        raise RailkdError(
            f"--unlabelled {text}: expected a share of every batch between 0 and 1 behind the last colon, got "
            f"{found[2]}. Fix: write {found[1]}:0.3. A config or split of this name is written {text}:train."
        )
    return found[1], share


def parse_shares(texts: Iterable[str]) -> list[tuple[Source, float | None]]:
    """Return the sources without labels that a user names, each with its share or None.

    Args:
        texts: such as ``FILE`` and ``FILE:0.3``.

    Raises:
        RailkdError: a share is not between 0 and 1, they leave nothing for labelled rows, or a source comes twice.
    """
    found = [split_share(text) for text in texts]
    total = sum(share or 0 for _, share in found)
    if total > 1 - 1e-6:
        raise RailkdError(
            f"--unlabelled: expected shares with a sum below 1, the rest being the share of the labelled rows, got "
            f"{total:g}. Fix: lower them."
        )
    names = [file for file, _ in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise RailkdError(f"--unlabelled: expected each source once, got '{twice[0]}' twice. Fix: raise its share.")
    return [(Source.parse(file), share) for file, share in found]
