"""The README.md of a cache that is pushed: whose numbers it holds, how many, and what they can tell about texts."""

from __future__ import annotations

from railkd.runtime.words import size
from railkd.teacher.cache import TeacherCache

CARD = "README.md"
#: Between these lines a push writes anew; the rest of the file is kept.
_BEGIN, _END = "<!-- railkd: written by each push -->", "<!-- railkd: end -->"
_HEAD = """\
---
license: other
tags: [railkd, knowledge-distillation]
---

# A teacher as a data set

"""
_LICENCE = """
## Licence

State here the licences of the teacher and of the texts. Both may restrict what is done with these numbers, and with
students that learn from them.
"""


def card(cache: TeacherCache, before: str = "") -> str:
    """Return the text of the README.

    Args:
        cache: that is pushed.
        before: the README there; what others wrote into it is kept.
    """
    own = f"{_BEGIN}\n{_about(cache)}{_END}\n"
    start, end = before.find(_BEGIN), before.find(_END)
    if 0 <= start < end:
        return before[:start] + own + before[end + len(_END) :].removeprefix("\n")
    return before + ("\n" if before else _HEAD) + own + _LICENCE


def _about(cache: TeacherCache) -> str:
    info, identity = cache.info, cache.identity
    states = "none: outputs alone"
    if cache.poolings:
        kept = " principal components" if identity.states_dim else ""
        states = f"{', '.join(cache.poolings)} of {info.blocks} blocks of {info.width}{kept}, {identity.states_dtype}"
    family = identity.config.get("model_type") or identity.config.get("kind") or "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(identity.versions.items()))
    return f"""\
A teacher cache of railkd: the outputs and pooled block states of one teacher, by keys of texts. It holds no text and no
weights.

**States can leak text.** A key is a hash of a text: whoever guesses a text can see whether it is here. From the states
of blocks a model can be trained that reconstructs much of a text. Treat this data set like the texts themselves.

| | |
|---|---|
| teacher | {_cell(family)}, {_cell(identity.precision)} |
| digest of its weights, config and tokenizer | `{identity.content()}` |
| outputs | {_cell(", ".join(info.labels))} ({info.problem_type}) |
| states | {states} |
| rows | {cache.rows:,} |
| bytes | {size(cache.bytes)}, {cache.row_bytes:,} a row |
| length of texts | at most {identity.max_length} tokens |
| built with | {_cell(versions) or "unknown"} |

`railkd cache pull NAME --cache DIR` copies it, adds its rows to a cache of the same teacher, and checks every number. A
student then learns from it without the teacher: `railkd distill --cache DIR --student MODEL --train FILE --output DIR`
with the texts that the teacher has read.
"""


def _cell(text: object) -> str:
    """Return a value that cannot break the table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")[:500]
