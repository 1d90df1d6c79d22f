"""The rooms of the house, read from the imports: for the tests of its architecture and for its picture.

python tests/house.py        draw docs/house.svg again
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
PICTURE = ROOT / "docs" / "house.svg"
FILES = sorted(SRC.rglob("*.py"))

#: Floors from the ground up; a room imports from its own floor and those below. A new room is given its floor here.
FLOORS = (
    {"errors"},
    {"functional", "mapping", "runtime", "signals", "statistics"},
    {"data", "records"},
    {"tasks"},
    {"objectives", "report"},
    {"models", "testing"},
    {"teacher"},
    {"export", "training"},
    {"jobs"},
    {"bench"},
    {"cli"},
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
#: They hand out names lazily or start the program, and belong to no floor.
DOORS = {"__init__", "__main__"}
#: The room that may know transformers' Trainer.
TRAINERS = {"training"}
#: Read before heavy imports, or without torch at all.
LIGHT = {"errors", "mapping", "records", "jobs/options", "jobs/settings", "jobs/validation", "runtime/environment"}
LIGHT |= {"jobs/preconditions", "runtime/files", "runtime/words"}
#: What the top of the package may hold, the marker py.typed aside: the listing is the table of contents.
MOST_NAMES = 20


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    first = path.relative_to(SRC / "railkd").parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(absolute module, names) of every import of a file: lazy ones and those for types included."""
    package = path.relative_to(SRC).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*base, *([node.module] if node.module else [])]), [alias.name for alias in node.names]


def rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for module, names in imports(path):
        parts = module.split(".")
        if parts[0] == "railkd":
            rooms |= {parts[1]} if len(parts) > 1 else set(names)
    return rooms - {room_of(path), "__version__"}


def files_imported(path: Path) -> set[Path]:
    """The files of railkd that a file imports: those of submodules by name, otherwise the package's own file."""
    found = set()
    for module, names in imports(path):
        base = SRC.joinpath(*module.split("."))
        for place in [base / name for name in names] or [base]:
            candidates = (
                place.with_suffix(".py"),
                place / "__init__.py",
                base.with_suffix(".py"),
                base / "__init__.py",
            )
            found |= set([file for file in candidates if file in FILES][:1])
    return found


def circle(imported: Mapping[Path, set[Path]]) -> set[str]:
    """The files that are left when those that import none of the rest are taken away, again and again."""
    left = dict(imported)
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    return {str(path.relative_to(SRC)) for path in left}


def first_line(room: str) -> str:
    """The first line of a room's docstring, without its full stop and markup."""
    folder = SRC / "railkd" / room
    text = ast.get_docstring(tree(folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py"))) or ""
    return text.split("\n\n")[0].split("\n")[0].rstrip(".").replace("`", "")


def arrows() -> dict[str, set[str]]:
    """Room -> the rooms it imports from."""
    found: dict[str, set[str]] = {room: set() for room in FLOOR}
    for path in FILES:
        if room_of(path) not in DOORS:
            found[room_of(path)] |= rooms_imported(path) & FLOOR.keys() - {"errors"}  # every room may raise
    return found


def picture() -> str:
    """The floors as SVG, the highest first: each room with its first line and the rooms it imports from."""
    imported = arrows()
    width, gap, margin, line = 1000, 12, 10, 15
    parts: list[str] = []
    top = margin
    for floor in reversed(FLOORS):
        rooms = sorted(floor)
        box = (width - 2 * margin - gap * (len(rooms) - 1)) / len(rooms)
        letters = int(box / 6.6) - 3
        lines = {room: textwrap.wrap(first_line(room), letters) for room in rooms}
        uses = {
            room: textwrap.wrap("uses " + " ".join(sorted(imported[room])), letters) if imported[room] else []
            for room in rooms
        }
        height = 28 + line * max(len(lines[room]) + len(uses[room]) for room in rooms) + 6
        for number, room in enumerate(rooms):
            x = margin + number * (box + gap)
            parts.append(f'<rect x="{x:.0f}" y="{top}" width="{box:.0f}" height="{height}" rx="4"/>')
            parts.append(f'<text class="name" x="{x + 10:.0f}" y="{top + 20}">{escape(room)}</text>')
            texts = [("", text) for text in lines[room]]
            texts += [(' class="uses"', text) for text in uses[room]]
            for place, (kind, text) in enumerate(texts):
                y = top + 38 + line * place
                parts.append(f'<text{kind} x="{x + 10:.0f}" y="{y}">{escape(text)}</text>')
        top += height + gap
    style = (
        "svg{background:#fff}rect{fill:#f6f7f9;stroke:#8a94a3}text{font:12px system-ui,sans-serif;fill:#1b2430}"
        ".name{font-weight:600;font-size:14px}.uses{fill:#6a7482}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top - gap + margin}">\n'
        f"<title>The rooms of railkd by floor; imports run downwards</title>\n<style>{style}</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
