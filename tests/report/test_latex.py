"""The tables for a paper: every number, every name escaped, and text that LaTeX takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from railkd.cli import main
from railkd.report.content import content
from railkd.report.headline import scores_note
from railkd.report.latex import escape, latex
from railkd.report.study import read
from report.made_grid import Shape, write

HOSTILE = r"a_b & 50% $x^2$ #1 {y} ~z \end{table} <|>"
SHAPE = Shape(
    ("RTE", HOSTILE, "C"),
    ("one_small", "two"),
    {"kd": 0.0, HOSTILE: 5.0, "rail-kd-l": 0.1},
    ood={"RTE": ("HANS",)},
    missing=(("C", "two", "kd"),),
)
#: Commands that the tables use, with the escapes.
KNOWN = {
    *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "mathbf", "pm"),
    *("setlength", "belowcaptionskip", "tabcolsep", "resizebox", "ifdim", "width", "linewidth", "else", "fi"),
    *(
        "footnotesize",
        "textbackslash",
        "textasciitilde",
        "textasciicircum",
        "textless",
        "textgreater",
        "textbar",
        "textquotedbl",
    ),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("latex")
    write(folder, SHAPE)
    return content(read([folder]))


def body(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def test_every_number_stands_in_its_row_and_the_best_is_bold(report: dict[str, Any]) -> None:
    lines = latex(report).splitlines()
    bold = 0
    for table in report["scores"].values():
        for group in table["groups"]:
            for row in group["rows"]:
                cells = [cell for cell in (*row["cells"], row["average"]) if cell]
                wanted = [
                    (rf"\mathbf{{{c['mean']:.1f}}}" if c["best"] else f"{c['mean']:.1f}")
                    + (rf"_{{\pm {c['sd']:.1f}}}" if c["sd"] is not None else "")
                    for c in cells
                ]
                bold += sum(c["best"] for c in cells)
                found = [line for line in lines if line.startswith(escape(row["arm"]) + " & ")]
                assert any(all(f"${number}$" in line for number in wanted) for line in found), row["arm"]
    assert bold > 3 and latex(report).count(r"\mathbf") == bold
    assert latex(report).count(escape(scores_note(report))) == 4  # two students, two domains


def test_the_text_is_sound_latex(report: dict[str, Any]) -> None:
    """Environments and braces are closed, rows have as many cells as columns, and no name reaches LaTeX unescaped."""
    text = body(latex(report))
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= KNOWN
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or stack.pop() == name
        stack += [name] if kind == "begin" else []
    assert not stack and text.count(r"\begin{tabular}") == 4
    plain = re.sub(r"\\[&%$#_{}]", "", text)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert not set("%#~^") & set(plain)
    assert "_" not in plain.replace("tab-in-onesmall", "").replace(r"_{\pm", "")
    for table in re.findall(r"\\begin\{tabular\}\{l(r+)\}(.*?)\\end\{tabular\}", plain, flags=re.DOTALL):
        rows = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert len(rows) > 4 and {line.count("&") for line in rows} == {len(table[0])}


def test_latex_compiles_it_where_there_is_one(report: dict[str, Any], tmp_path: Path) -> None:
    engine = next(filter(shutil.which, ("tectonic", "pdflatex", "xelatex")), None)
    if engine is None:
        pytest.skip("no LaTeX is installed; the test above parses the text")
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx,textcomp}\begin{document}"
    (tmp_path / "a.tex").write_text(f"{head}\n{latex(report)}\n\\end{{document}}\n")
    options = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([engine, *options, "a.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout  # no table is wider than the text


def test_the_command_writes_it(tmp_path: Path) -> None:
    write(tmp_path / "bench", SHAPE)
    assert main(["report", str(tmp_path / "bench"), "--latex", str(tmp_path / "t.tex"), "--quiet"]) == 0
    assert (tmp_path / "t.tex").read_text(encoding="utf-8").count(r"\toprule") == 4
