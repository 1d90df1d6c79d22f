"""The table of the demo fits a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from railkd.cli.demo.table import Line, rich_table


def test_nothing_is_cut_in_a_narrow_terminal() -> None:
    lines = [
        Line("teacher", 109_482_240, 438.0, 113.4, 0.851, 0.832, 0.797, 1.0, 0.0, 1268.0),
        Line("int8", 17_400_000, 17.5, 1.9, 0.807, 0.748, 0.754, 0.9483, 0.0, 0.0),
        Line("recommended", 17_400_000, 70.0, 15.8, 0.809, 0.749, 0.755, 0.9512, 107.0, 1053.0),
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(rich_table(lines))
    text = out.getvalue()
    assert "…" not in text
    for word in ("109.5 M", "438", "113.4", "0.797", "100.0%", "1268 s", "15.8", "0.809", "95.1%", "107 s", "1053 s"):
        assert word in text.split("cache:")[0]
