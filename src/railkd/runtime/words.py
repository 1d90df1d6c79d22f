"""Format sizes, durations, counts and lists for people: one format each, everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Control characters, line separators, characters that change the direction of text, and lone surrogates: a terminal
#: obeys them or cannot show them. Line break and tab are not among them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def size(count: float, unit: str = "B") -> str:
    """Return a number of bytes, or of another unit, with a decimal prefix.

    Args:
        count: how many.
        unit: what is counted; empty for numbers such as those of parameters.

    >>> size(512), size(18_456_000), size(1.06e9), size(142e6), size(17.4e6, "")
    ('512 B', '18.5 MB', '1.1 GB', '142 MB', '17.4 M')
    """
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            shown = count / factor
            return f"{shown:,.{0 if shown >= 100 and factor < 1e9 else 1}f} {prefix}{unit}"
    return f"{count:.0f} {unit}".strip()


def duration(seconds: float) -> str:
    """Return a time in the units a person would use.

    >>> duration(0.42), duration(41.7), duration(200), duration(120), duration(7500), duration(7200)
    ('0.42 s', '42 s', '3 min 20 s', '2 min', '2 h 05 min', '2 h')
    """
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    small, large, rest = ("s", "min", whole) if whole < 3600 else ("min", "h", round(seconds / 60))
    return f"{rest // 60} {large}" + (f" {rest % 60:02d} {small}" if rest % 60 else "")


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it must be.

    >>> counted(1, "seed"), counted(3000, "seed"), counted(2, "class")
    ('1 seed', '3,000 seeds', '2 classes')
    """
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def listed(items: Iterable[object], most: int | None = None) -> str:
    """Return a list in words.

    Args:
        items: shown as `str` shows them.
        most: how many are shown; the rest are counted.

    >>> listed([]), listed("a"), listed("ab"), listed("abc"), listed(range(9), most=2)
    ('', 'a', 'a and b', 'a, b and c', '0, 1 and 7 more')
    """
    shown = [str(item) for item in items]
    if most is not None and len(shown) > most:
        shown[most:] = [f"{len(shown) - most} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def named(names: Iterable[str]) -> str:
    """Return names in quotes, as a list in words; of a long list the first 20, and of a long name both ends.

    >>> named(["text", "label"])
    "'text' and 'label'"
    """
    return listed((repr(shortened(name)) for name in names), most=20)


def shortened(text: str, most: int = 60) -> str:
    """Return a text for a message: cut in the middle if it is long.

    Args:
        text: of any length.
        most: how many characters are shown.

    >>> shortened("a label"), shortened("x" * 5000, most=9)
    ('a label', 'xxxx...xxxx (5,000 characters)')
    """
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[-(most // 2) :]} ({len(text):,} characters)"


def joined(names: Iterable[str], by: str = ", ") -> str:
    """Return names without quotes, each cut if it is long.

    Args:
        names: any number.
        by: what stands between them.

    >>> joined(["negative", "positive"])
    'negative, positive'
    """
    return by.join(map(shortened, names))


def quoted(text: str) -> str:
    """Return a word as one types it in a shell.

    >>> quoted("not entailment"), quoted("neutral")
    ('"not entailment"', 'neutral')
    """
    return f'"{text}"' if " " in text else text


def visible(text: str) -> str:
    r"""Return text for a terminal: control characters are written as escapes, except line breaks and tabs.

    Args:
        text: may hold names that come from files.

    >>> visible("a\x1b[31mb"), visible("a\tb\n")
    ('a\\x1b[31mb', 'a\tb\n')
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_all(value: Any) -> Any:
    """Return lists and mappings with all texts in them as `visible` writes them.

    Args:
        value: of lists, mappings, texts and other values, as JSON has them.
    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible_all(key): visible_all(item) for key, item in value.items()}
    return [visible_all(item) for item in value] if isinstance(value, (list, tuple)) else value
