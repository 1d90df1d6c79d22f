"""Format numbers for a reader. The page, Markdown and the terminal share these functions; CSV holds full precision."""

from __future__ import annotations

from railkd.runtime.words import duration
from railkd.runtime.words import size as bytes_text

MINUS = "−"
DASH = "–"


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with a true minus sign, without "-0.0"; a dash for None.

    Args:
        value: the number.
        digits: decimal places.

    Returns:
        The text.

    >>> number(-0.04), number(-1.25), number(None)
    ('0.0', '−1.2', '–')
    """
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if float(text.replace(",", "")) == 0 else MINUS + text[1:]
    return text


def signed(value: float | None, digits: int = 1) -> str:
    """Return a difference with its sign.

    Args:
        value: the difference.
        digits: decimal places.

    Returns:
        The text; a dash for None.

    >>> signed(0.42), signed(-0.2), signed(0.0)
    ('+0.4', '−0.2', '0.0')
    """
    text = number(value, digits)
    return text if value is None or text.startswith(MINUS) or float(text.replace(",", "")) == 0 else f"+{text}"


def spread(mean: float, sd: float | None, digits: int = 1) -> str:
    """Return a mean with its standard deviation, if there is one.

    Args:
        mean: the mean.
        sd: the standard deviation; None for a single value.
        digits: decimal places.

    Returns:
        The text.

    >>> spread(81.23, 0.41), spread(81.23, None)
    ('81.2 ± 0.4', '81.2')
    """
    return number(mean, digits) + (f" ± {number(sd, digits)}" if sd is not None else "")


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return an interval.

    Args:
        low: lower end.
        high: upper end.
        digits: decimal places.

    Returns:
        The text; a dash if an end is None.

    >>> interval(-0.21, 1.0)
    '[−0.2, 1.0]'
    """
    return DASH if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def p_value(p: float | None) -> str:
    """Return a p-value with two decimals, or three if it is small.

    Args:
        p: the p-value.

    Returns:
        The text; a dash for None.

    >>> p_value(0.0312), p_value(0.0042), p_value(1e-9), p_value(None)
    ('0.03', '0.004', '< 0.001', '–')
    """
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0095 else f"{p:.2f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in percent.

    Args:
        share: from 0 to 1.
        digits: decimal places.

    Returns:
        The text; a dash for None.

    >>> percent(0.8123)
    '81.2 %'
    """
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def class_scores(cell: dict[str, float | None] | None) -> str:
    """Return the scores of one class, times 100: F1, then precision and recall.

    Args:
        cell: with ``precision``, ``recall`` and ``f1``; None: there is no run.

    Returns:
        The text. A score that is not defined is a dash.

    >>> class_scores({"precision": 0.5, "recall": 1.0, "f1": 0.667}), class_scores(None)
    ('66.7 (50.0 / 100.0)', '–')
    """
    if cell is None:
        return DASH
    f1, precision, recall = (
        number(None if (value := cell[name]) is None else 100 * value) for name in ("f1", "precision", "recall")
    )
    return f"{f1} ({precision} / {recall})"


def seconds(value: float | None) -> str:
    """Return a duration.

    Args:
        value: in seconds.

    Returns:
        The text, e.g. "3 min 20 s"; a dash for None.
    """
    return DASH if value is None else duration(value)


def size(value: float | None) -> str:
    """Return a number of bytes.

    Args:
        value: in bytes.

    Returns:
        The text, e.g. "91 MB"; a dash for None and for 0, which mean "not known".
    """
    return bytes_text(value) if value else DASH


def ratio(value: float | None) -> str:
    """Return a ratio.

    Args:
        value: the ratio.

    Returns:
        The text; a dash for None.

    >>> ratio(1.034)
    '1.03×'
    """
    return DASH if value is None else f"{value:.2f}×"
