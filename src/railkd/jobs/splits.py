"""Every table of a training job: what is trained on, what chooses the epoch, what is scored at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset, concatenate_datasets

from railkd.data.keys import held_out
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.datafiles import DataFiles, named_tests
from railkd.jobs.options import DistillOptions, FinetuneOptions, required
from railkd.models.heads import task_of_config
from railkd.models.limits import check_texts


@dataclass
class Tables:
    """Every table of a training job, read before anything is built."""

    train: Dataset
    unlabelled: Dataset | None
    eval: Dataset | None
    test: dict[str, Dataset]
    sources: dict[str, Source]  # of the test sets
    domains: dict[str, str]
    selecting: str = "--eval"  # what ``eval`` is, in words

    @classmethod
    def read(cls, files: DataFiles, options: FinetuneOptions | DistillOptions) -> Tables:
        source = Source.parse(required(options.train, "--train"))
        named, domains = named_tests(options, trained_on=source)
        if "eval" in named and options.eval:
            raise RailkdError(f"--test: 'eval' is the name of --eval; name it otherwise: NAME={named['eval'].text}")
        files.train_on(source)
        train = files.read(source, split="train")
        more = getattr(options, "unlabelled", None)
        unlabelled = files.read(Source.parse(more), split="train", labelled=False) if more else None
        if unlabelled is not None and ("text_pair" in unlabelled.column_names) != ("text_pair" in train.column_names):
            one, two = "one text a row", "pairs of texts"
            got, wanted = (two, one) if "text_pair" in unlabelled.column_names else (one, two)
            raise RailkdError(
                f"--unlabelled: got {got} in '{more}', wanted {wanted} as in --train '{options.train}'; name the same "
                "columns of both with --text-column, or give another file"
            )
        selecting = files.read(Source.parse(options.eval), split="dev") if options.eval else None
        words = "--eval"
        if options.eval_share is not None:
            train, selecting = held_out(train, options.eval_share, options.eval_seed)
            words = f"{len(selecting):,} training rows held out (seed {options.eval_seed})"
            files.say(f"the epoch is chosen by {words}; {len(train):,} are trained on")
        return cls(
            train=train,
            unlabelled=unlabelled,
            eval=selecting,
            test={name: files.read(test, split=test.scored_split) for name, test in named.items()},
            sources=named,
            domains=domains,
            selecting=words,
        )

    def chosen_by(self, files: DataFiles) -> str | None:
        """The metric that chooses the best epoch; None: no rows do."""
        return files.primary_metric if self.eval is not None else None

    def texts(self) -> Dataset:
        """The rows a teacher must have seen: all that are trained on."""
        parts = [self.train.remove_columns("label")] + ([self.unlabelled] if self.unlabelled is not None else [])
        return concatenate_datasets(parts)

    def check_lengths(self, config: Any, tokenizer: Any, max_length: int, who: str) -> None:
        """Refuse rows that a model would crash on, in whichever table they are."""
        for table in (self.train, self.unlabelled, self.eval, *self.test.values()):
            if table is not None:
                check_texts(config, tokenizer, table, max_length, who)

    def training_rows(self, config: Any) -> Dataset:
        """Labelled rows and, marked as such, unlabelled ones."""
        if self.unlabelled is None:
            return self.train
        mark = task_of_config(config).unlabelled(config.num_labels)
        columns = {name: self.unlabelled[name] for name in self.unlabelled.column_names}
        marked = Dataset.from_dict({**columns, "label": [mark] * len(self.unlabelled)}, features=self.train.features)
        return concatenate_datasets([self.train, marked])
