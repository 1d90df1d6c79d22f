"""Write the rows and the encoder that the grids of this folder name, into studies/work (not committed).

``python studies/prepare.py movies`` writes the sentences of ``make demo``: 3,000 labelled ones, 500 that choose the
epoch, the other training sentences without labels, and all test sentences.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from railkd.cli.demo.data import sentiment_sets, subset, write_tsv
from railkd.cli.demo.model import encoder_folder

WORK = Path(__file__).parent / "work"
LABELLED, CHOOSING = 3000, 500


def movies(folder: Path) -> None:
    """Write the movie sentences, and product and news sentences as sets out of the domain."""
    sets = sentiment_sets()
    train = subset(sets.train, LABELLED)
    labelled = {text for text, _ in train}
    rest = [text for text, _ in sets.train if text not in labelled]
    (folder / "unlabelled.tsv").write_text("\n".join(["text", *rest]) + "\n", encoding="utf-8")
    parts = {"train": train, "dev": subset(sets.dev, CHOOSING), "movie": sets.test}
    for name, rows in (parts | {"product": sets.product, "news": sets.news}).items():
        write_tsv(folder / f"{name}.tsv", rows)
    print(f"{folder}: {len(train):,} labelled, {len(rest):,} unlabelled")


#: Name of a task -> function that writes its rows into a folder.
TASKS: dict[str, Callable[[Path], None]] = {"movies": movies}


def main(names: list[str]) -> None:
    """Write the rows of the named tasks, or of all, and link the encoder."""
    for name in names or list(TASKS):
        (WORK / name).mkdir(parents=True, exist_ok=True)
        TASKS[name](WORK / name)
    encoder = WORK / "encoder"
    if not encoder.exists():
        encoder.symlink_to(encoder_folder(), target_is_directory=True)


if __name__ == "__main__":
    main(sys.argv[1:])
