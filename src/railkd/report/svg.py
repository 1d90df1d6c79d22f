"""Turn figures of matplotlib into inline SVG that uses the colours and the font of the page.

matplotlib draws with placeholder colours. Each becomes a CSS variable, so one plot serves the light and the dark theme.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

#: Placeholder colours; `_THEME` maps them, and those of the arms, to CSS variables.
INK, SOFT, LINE, ACCENT, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
#: Colours of arms; with more arms they repeat.
SERIES = 12
_THEME = {INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent", PAPER: "paper"} | {
    f"#0102{16 + i:02x}": f"s{i}" for i in range(SERIES)
}
#: Redundant parts of matplotlib's SVG, which would make the page larger: (pattern, replacement).
_REMOVALS = tuple(
    (re.compile(pattern, flags=re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<g/>", ""),
        (r"font: ([\d.]+px) [^;\"]+", r"font-size: \1"),
        (r" font-family: [^;\"]+;", ""),
        (r' transform="rotate\(-0 [^"]+"', ""),
        (r"\s*\n\s*", "\n"),
        (r"<g>\s*</g>", ""),
    )
)
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "railkd",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def series(number: int) -> str:
    """Return the placeholder colour of an arm.

    Args:
        number: index of the arm, from 0.

    Returns:
        A colour of matplotlib.
    """
    return f"#0102{16 + number % SERIES:02x}"


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of the report inside a ``with`` block.

    Yields:
        Nothing.
    """
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser draws the text, so matplotlib's font need not have every letter.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        yield


def figure(width: int, height: int) -> tuple[Figure, Any]:
    """Return an empty figure with one pair of axes.

    Args:
        width: width in CSS pixels.
        height: height in CSS pixels.

    Returns:
        The figure and its axes.
    """
    fig = Figure(figsize=(width / 72, height / 72))
    return fig, fig.add_subplot()


def render(fig: Figure, name: str, title: str, description: str) -> str:
    """Return a figure as an ``<svg>`` element.

    Args:
        fig: the figure.
        name: prefix of the ids inside; unique on the page.
        title: title for screen readers.
        description: content in words, for screen readers.

    Returns:
        The element.
    """
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(
        r"<[^>]+>", lambda tag: re.sub(r"(\.\d{2})\d+", r"\1", tag[0]), text
    )  # round to a hundredth of a pixel
    for pattern, replacement in _REMOVALS:
        text = pattern.sub(replacement, text)
    for colour, variable in _THEME.items():
        text = text.replace(colour, f"var(--{variable})")
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    assert box is not None
    label = f'role="img" aria-labelledby="{name}-t {name}-d"'
    size = f'width="{float(box[1]):.0f}" height="{float(box[2]):.0f}" {box[0]}'
    texts = f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" {size} {label}>{texts}{body.strip()}'
