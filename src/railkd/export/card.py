"""Writes the model card: the README.md of a model's folder, with the metadata that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from railkd.data.sources import SELECTION_SET
from railkd.export import side_by_side
from railkd.models.heads import task_of_config
from railkd.models.named_teachers import as_list, named_teachers
from railkd.objectives import METHODS
from railkd.records import RunRecord
from railkd.runtime.words import joined, listed, size
from railkd.runtime.yaml_text import write_yaml
from railkd.tasks.by_class import HEADS, describe_classes_left_out, table_rows, worst_classes

#: Settings of a run that name models.
_MODELS = ("teacher", "student", "model")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
#: Of an address: user and password, the query, and the fragment. One may hold another: zip://a.csv::https://b/c.zip.
_SECRET = re.compile(r"(?<=://)[^/?#]*@|[?#].*?(?=::\w[\w+.-]*://|\Z)", re.DOTALL)
#: The slice and the share at the end of a source.
_TAIL = re.compile(r"(\[-?\d*%?:-?\d*%?\])?(:\d*\.\d+)?\Z")
#: Settings that say where a run wrote, on the machine that ran it.
_LEFT_OUT = ("output", "cache", "push_to_hub")
_NOT_MEASURED = (
    "other seeds, unless the scores above say so",
    "bias and fairness, languages and domains other than those of the sets above",
    "the licences of the base model, the teacher and the data: check them before you publish",
)


def model_card(record: RunRecord | None, config: Any, shipped: Mapping[str, Any] | None = None) -> str:
    """Return the card of a trained model, as Markdown with metadata.

    It has no times and no machine paths, so that two equal runs write equal cards.

    Args:
        record: of the training; None if it is not known.
        config: of the model.
        shipped: record of the export, as ``export.json`` holds it; None: the folder of a run.

    Returns:
        The text.
    """
    from huggingface_hub import EvalResult, ModelCardData

    task = task_of_config(config)
    name = _title(record, config)
    trimmed = "vocabulary" in (shipped or {})
    scores = record.metrics if record and not trimmed else {}  # a smaller vocabulary was not scored
    results = [
        EvalResult(task.pipeline_tag, f"local/{sets}", sets, metric, round(value, 4))
        for sets, metrics in scores.items()
        if sets != SELECTION_SET
        for metric, value in metrics.items()
    ]
    data = ModelCardData(
        model_name=name,
        base_model=_hub_models(record),
        library_name="transformers",
        pipeline_tag=task.pipeline_tag,
        tags=["railkd", *([record.method.rpartition(":")[2]] if record and record.method else [])],
        eval_results=results or None,
    )
    sections = (
        ("", [_summary(record, config)]),
        ("How to use", _usage(shipped)),
        ("Training", _training(record, trimmed)),
        ("Scores", _scores(record, trimmed)),
        ("Scores by class", _by_class(record, trimmed)),
        ("Exported files", _exports(shipped)),
        ("How it was made", _command(record)),
        ("What was not measured", [f"- {line}" for line in _NOT_MEASURED]),
    )
    parts = [f"## {title}\n\n" + "\n".join(lines) if title else "\n".join(lines) for title, lines in sections if lines]
    return f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n" + "\n\n".join(parts) + "\n"


def _title(record: RunRecord | None, config: Any) -> str:
    made = {"distill": "student", "finetune": "model"}.get(record.job if record else "", "model")
    return f"{config.model_type} {made} of {config.num_hidden_layers} blocks"


def _hub_models(record: RunRecord | None) -> list[str] | None:
    """Return the models of the run that are names on the hub; folders say nothing to a reader elsewhere."""
    given = [text for key in _MODELS for text in as_list(record.config.get(key))] if record else []
    found = [name.partition("@")[0] for name in given if _HUB_NAME.fullmatch(name) and not Path(name).exists()]
    return found or None


def _public(value: Any) -> Any:
    """Return a setting without the folders of the machine that ran it, and without the secrets of addresses."""
    if isinstance(value, list):
        return [_public(item) for item in value]
    if isinstance(value, str) and "://" in value:
        tail = _TAIL.search(value)[0]  # type: ignore[index]  # it may be empty
        return _SECRET.sub("", value.removesuffix(tail)) + tail
    if isinstance(value, str) and (found := re.fullmatch(r"(\w[\w.-]*=)?(/.*|~.*|[A-Za-z]:[\\/].*)", value)):
        return (found[1] or "") + Path(found[2]).name
    return value


def _summary(record: RunRecord | None, config: Any) -> str:
    task = task_of_config(config)
    answers = f"with the classes {joined(config.id2label.values())}" if task.width is None else "that gives one number"
    made = "A model for text classification"
    if record and record.job == "distill":
        made = f"A student, distilled from {_teacher(record.config)} by {_public(record.method)},"
    elif record:
        made = f"A model, fine-tuned from `{_public(record.config.get('model', 'a checkpoint'))}`,"
    return f"{made} {answers}. Written by [railkd](https://pypi.org/project/railkd/)."


def _teacher(settings: Mapping[str, Any]) -> str:
    teachers = named_teachers(settings)
    shown = [
        f"the answers in `{Path(_public(one.labels)).name}`" if one.labels else f"`{_public(one.name)}`"
        for one in teachers
    ]
    if len(shown) < 2:
        return shown[0] if shown else "a teacher"
    weights = settings.get("teacher_weights")
    return f"the mean of {listed(shown)}" + (f" (weights {listed(weights)})" if weights else "")


def _usage(shipped: Mapping[str, Any] | None) -> list[str]:
    lines = ["```python", "from transformers import pipeline", "", 'classify = pipeline("text-classification", ".")']
    lines += ['print(classify("a text"))', "```"]
    if shipped and "onnx" in shipped:
        lines += ["", '`python example.py "a text"` runs the ONNX file by onnxruntime, without PyTorch.']
    if shipped and "thresholds" in shipped:
        example = ", and so does `example.py`" if "onnx" in shipped else ""
        lines += [
            "",
            f"`railkd predict --model . --thresholds .` answers by `thresholds.json`{example}; `pipeline` does not.",
        ]
    return lines


def _training(record: RunRecord | None, trimmed: bool) -> list[str]:
    if record is None:
        return []
    lines = []
    spec = METHODS.get(record.method or "")
    if spec is not None and record.job == "distill":
        lines.append(f"- method: {spec.name} ({spec.paper}); blocks read: {spec.reads}; its formula: docs/methods.md")
    elif record.method and record.job == "distill":
        lines.append(f"- method: {_public(record.method)} ({record.paper or 'no source given'}), not a part of railkd")
    for name in ("train", "max_train_rows", "unlabelled", "eval", "eval_share"):
        if name in record.config:
            digest = f" (digest `{record.contents[name]}`)" if name in record.contents else ""
            given = record.config[name]
            shown = ", ".join(f"`{_public(one)}`" for one in (given if isinstance(given, list) else [given]))
            lines.append(f"- {name.replace('_', ' ')}: {shown}{digest}")
    lines.append(f"- seed: {record.seed}; weights kept: {record.selection}")
    if record.draws:
        shown = ", ".join("-".join(map(str, draw)) for draw in record.draws[:10])
        more = f", and {len(record.draws) - 10:,} more" if record.draws[10:] else ""
        lines.append(f"- teacher blocks of each draw: {shown}{more}")
    if "parameters" in record.sizes:
        before = " before the vocabulary was trimmed" if trimmed else ""
        lines.append(f"- parameters{before}: {size(record.sizes['parameters'], '')}")
    return lines


def _scores(record: RunRecord | None, trimmed: bool) -> list[str]:
    if record is None or not record.metrics:
        return []
    names = list(dict.fromkeys(name for metrics in record.metrics.values() for name in metrics))
    rows = [
        [sets, _domain(record, sets), *(f"{metrics[name]:.4f}" if name in metrics else "" for name in names)]
        for sets, metrics in record.metrics.items()
    ]
    notes = ["These are the scores before the vocabulary was trimmed."] if trimmed else []
    notes += [f"{sets}, {metric}: {gap}." for sets, gaps in record.gaps.items() for metric, gap in gaps.items()]
    notes.append("One run, so that there is no interval over seeds.")
    return [*_table(["set", "domain", *names], rows), "", *notes]


def _by_class(record: RunRecord | None, trimmed: bool) -> list[str]:
    """Return a table for each test set; for the selection set only if there is no test set."""
    by_set = record.classes if record and not trimmed else {}
    tests = {name: scores for name, scores in by_set.items() if name != SELECTION_SET} or by_set
    lines: list[str] = []
    for name, scores in tests.items():
        left_out = describe_classes_left_out(scores)
        lines += ["", f"{name}{f': {left_out}' if left_out else ''}", ""] if len(tests) > 1 or left_out else []
        lines += _table(HEADS, table_rows(worst_classes(scores)))
    return lines[1:] if lines and not lines[0] else lines


def _domain(record: RunRecord, name: str) -> str:
    outside = record.domains.get(name, "in") == "out"
    return "chose the weights" if name == SELECTION_SET else "out of domain" if outside else "in domain"


def _exports(shipped: Mapping[str, Any] | None) -> list[str]:
    if shipped is None or not shipped.get("bytes"):
        return []
    lines = _table(["file", "size"], [[name, size(count)] for name, count in sorted(shipped["bytes"].items())])
    if "vocabulary" in shipped:
        pieces = shipped["vocabulary"]
        lines += ["", f"Vocabulary: {pieces['after']:,} of {pieces['before']:,} word pieces are kept."]
    for form in ("onnx", "int8"):
        if form in shipped:
            parity = shipped[form]["parity"]
            lines += [
                "",
                f"{form}: on {parity['rows']:,} rows the largest logit difference to the model in PyTorch is "
                f"{parity['largest']:.1e}, and {parity['flips']:,} verdicts differ.",
            ]
    if "by_thresholds" in shipped:
        counts = ", ".join(f"{count:,} of {name}" for name, count in shipped["by_thresholds"]["flips"].items())
        rows = shipped["by_thresholds"]["rows"]
        lines += [
            "",
            f"Other verdicts than those of the model by `thresholds.json`, on {rows:,} rows: {counts}.",
        ]
    if "int8" in shipped:
        judged = [*([shipped["int8"]["together"]] if shipped["int8"]["together"] else []), *shipped["int8"]["gates"]]
        rows = [
            [one["name"], line["name"], f"{line['drop']['rows']:,}"]
            + [f"{100 * line['drop'][key]:.2f}" for key in ("drop", "bound")]
            + [f"{100 * line['margin']:g}", line["state"]]
            for one in judged
            for line in one["lines"]
        ]
        heads = ["set", "rows of", "rows", "int8 loses, points", "at most (95 %)", "allowed", "gate"]
        lines += ["", *_table(heads, rows)]
    if "latency" in shipped:
        threads = shipped["latency"]["threads"]
        lines += ["", f"Side by side, on the CPU ({threads} thread{'s' * (threads != 1)}), tokenisation left out:", ""]
        lines += _table(*side_by_side.cells(shipped["latency"]))
    return lines


def _command(record: RunRecord | None) -> list[str]:
    if record is None:
        return []
    config = {name: _public(value) for name, value in record.config.items() if name not in _LEFT_OUT}
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return [
        f"`railkd {record.job} --config run.yaml --output out/`, with this run.yaml:",
        "",
        "```yaml",
        write_yaml(config).rstrip(),
        "```",
        "",
        f"Versions: {versions}.",
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
