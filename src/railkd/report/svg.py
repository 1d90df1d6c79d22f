"""Figures of matplotlib as inline SVG that takes its colours and its font from the page.

matplotlib draws in marker colours, each of which becomes a CSS variable: one drawing serves light and dark.
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

#: Marker colour -> CSS variable. Those of the arms follow.
INK, SOFT, LINE, ACCENT, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
SERIES = 12
_THEME = {INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent", PAPER: "paper"} | {
    f"#0102{16 + i:02x}": f"s{i}" for i in range(SERIES)
}
#: What the page says once, or nobody sees.
_SPARED = tuple(
    (re.compile(found, flags=re.DOTALL), put)
    for found, put in (
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
    """The marker colour of the n-th arm."""
    return f"#0102{16 + number % SERIES:02x}"


@contextmanager
def style() -> Iterator[None]:
    """What every figure is drawn and written in."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are written by the reader's.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        yield


def figure(width: int, height: int) -> tuple[Figure, Any]:
    """A figure of so many CSS pixels, with one set of axes."""
    made = Figure(figsize=(width / 72, height / 72))
    return made, made.add_subplot()


def render(made: Figure, name: str, title: str, description: str) -> str:
    """As an ``<svg>`` element.

    Args:
        name: prefix of its ids, unlike that of any other on the page. title, description: for those who do not see it.
    """
    buffer = io.StringIO()
    made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d{2})\d+", r"\1", tag[0]), text)  # a hundredth of a pixel
    for found, put in _SPARED:
        text = found.sub(put, text)
    for colour, variable in _THEME.items():
        text = text.replace(colour, f"var(--{variable})")
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    assert box is not None
    label = f'role="img" aria-labelledby="{name}-t {name}-d"'
    size = f'width="{float(box[1]):.0f}" height="{float(box[2]):.0f}" {box[0]}'
    words = f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" {size} {label}>{words}{body.strip()}'
