"""Settings: YAML, flags and options are three spellings of one thing."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from railkd.cli.verbs import JOBS
from railkd.cli.words import Request, parse
from railkd.errors import RailkdError
from railkd.jobs.options import DistillOptions
from railkd.jobs.settings import TRAINING, Setting, convert, load
from railkd.jobs.training_settings import resolve
from railkd.report.provenance import command

DISTILL, EVALUATE, FINETUNE = (JOBS[name] for name in ("distill", "evaluate", "finetune"))


def config(tmp_path: Path, **values: Any) -> list[str]:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["--config", str(path)]


def read_back(tmp_path: Path, text: str) -> Request[Any]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return parse(DISTILL, ["--config", str(path)]).complete(DISTILL)


def test_defaults_then_config_then_flags(tmp_path: Path) -> None:
    file = config(tmp_path, train="a.tsv", epochs=2, **{"max-length": 64}, keep="first")
    request = parse(DISTILL, ["--epochs", "5", *file, "--keep", "last"]).request
    assert request.options.train == "a.tsv"  # the config over the default
    assert request.options.max_length == 64
    assert request.options.keep == "last"  # the flag over the config, wherever it stands
    assert request.training == {"num_train_epochs": 5.0}
    assert request.options.live is False


def test_a_flag_turns_off_what_the_config_turned_on(tmp_path: Path) -> None:
    request = parse(DISTILL, [*config(tmp_path, live=True, bf16=True), "--no-live", "--no-bf16"]).request
    assert request.options.live is False and request.training == {"bf16": False}


def test_a_null_in_yaml_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    request = parse(DISTILL, config(tmp_path, train=None, epochs=None, warmup_steps=None))
    assert request == parse(DISTILL, [])


@pytest.mark.parametrize(
    "argv",
    [
        ["--max-length", "9", "--epochs", "2", "--batch-size", "4", "--output", "o"],
        ["--max_length", "9", "--num_train_epochs", "2", "--per_device_train_batch_size", "4", "--output_dir", "o"],
        ["--max-length=9", "--num-train-epochs=2", "--per-device-train-batch-size=4", "--output-dir=o"],
    ],
)
def test_a_flag_has_many_spellings(argv: list[str]) -> None:
    parsed = parse(DISTILL, argv)
    assert parsed.request.options == DistillOptions(max_length=9, output="o")
    assert parsed.request.training == {"num_train_epochs": 2.0, "per_device_train_batch_size": 4}
    assert parsed.others == {}


@pytest.mark.parametrize("flag", ["--model", "--teacher", "--student"])
def test_a_verb_with_one_model_takes_any_word_for_it(flag: str) -> None:
    for verb in (EVALUATE, FINETUNE):
        assert parse(verb, [flag, "m"]).request.options.model == "m"


@pytest.mark.parametrize(
    ("argv", "name", "wanted"),
    [
        (["--pooling", "mean,cls"], "pooling", ["mean", "cls"]),
        (["--pooling", "mean", "cls"], "pooling", ["mean", "cls"]),
        (["--text-column", "a", "b, c"], "text_column", ["a", "b, c"]),
        (["--test", "a.tsv", "x=b.tsv", "--test", "c.tsv"], "test", ["a.tsv", "x=b.tsv", "c.tsv"]),
        (["--keep", "1,3,6"], "keep", "1,3,6"),
        (["--live"], "live", True),
        (["--live", "false"], "live", False),
        (["--teacher=-odd-name"], "teacher", "-odd-name"),
    ],
)
def test_words_become_options(argv: list[str], name: str, wanted: Any) -> None:
    assert getattr(parse(DISTILL, argv).request.options, name) == wanted


@pytest.mark.parametrize("weights", [["1", "2", "0.5"], ["1,2,.5"], ["1", "2,0.5"]])
def test_weights_with_and_without_commas(weights: list[str]) -> None:
    assert parse(DISTILL, ["--weights", *weights]).request.training == {"weights": [1.0, 2.0, 0.5]}


def test_a_number_that_yaml_reads_as_text_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("learning-rate: 5e-5\nweights: [1, 1, 2]\ntest: a.tsv\npooling: mean,cls\noutput: 2024\n")
    request = parse(DISTILL, ["--config", str(path)]).request
    assert request.training == {"learning_rate": 5e-5, "weights": [1.0, 1.0, 2.0]}
    assert request.options == DistillOptions(test=["a.tsv"], pooling=["mean", "cls"], output="2024")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--warmup-steps", "10"], {"warmup_steps": 10.0}),
        (["--max_steps=-1"], {"max_steps": -1}),
        (["--max-steps", "-1"], {"max_steps": -1}),
        (["--lr_scheduler_type", "cosine"], {"lr_scheduler_type": "cosine"}),
        (["--gradient-checkpointing"], {"gradient_checkpointing": True}),
        (["--gradient-checkpointing", "False"], {"gradient_checkpointing": False}),
        (["--no-length-groups"], {"length_groups": "none"}),
        (["--length-groups"], {"length_groups": "pools"}),
        (["--length-groups", "split"], {"length_groups": "split"}),
        (["--states-on-device", "yes"], {"states_on_device": "yes"}),
        (["--no-gradient-checkpointing"], {"gradient_checkpointing": False}),
        (["--lr-scheduler-kwargs", '{"num_cycles": 2}'], {"lr_scheduler_kwargs": {"num_cycles": 2}}),
        (["--strategy", "cyclic", "--shared-size", "32"], {"strategy": "cyclic", "shared_size": 32}),
        (["--ordered", "false", "--alpha", "sum"], {"ordered": False, "alpha": "sum"}),
        (["--report-to", "tensorboard"], {"report_to": "tensorboard"}),
        (["--projection_learning_rate", "1e-3"], {"projection_learning_rate": 1e-3}),
    ],
)
def test_every_training_argument_is_a_flag(words: list[str], wanted: dict[str, Any]) -> None:
    parsed = parse(DISTILL, words)
    assert resolve(parsed.others, verb="distill", known=DISTILL.settings()) == wanted


def test_every_training_argument_is_a_config_key(tmp_path: Path) -> None:
    text = (
        "warmup-steps: 7\neval_strategy: no\nlength_groups: false\nlr_scheduler_kwargs: {num_cycles: 2}\n"
        "states_on_device: yes\n"
        "freeze: [embeddings]\nweight_decay: 1e-2\n"
    )
    assert read_back(tmp_path, text).training == {
        "warmup_steps": 7.0,
        "eval_strategy": "no",
        "length_groups": "none",
        "states_on_device": "yes",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "freeze": ["embeddings"],
        "weight_decay": 0.01,
    }


def test_the_fields_behind_the_short_names_exist() -> None:
    from railkd.training.arguments import DistillationTrainingArguments

    known = {field.name for field in fields(DistillationTrainingArguments)}
    assert {setting.field for setting in TRAINING} <= known


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dump")


@settings(deadline=None, max_examples=60)
@given(
    options=st.builds(
        DistillOptions,
        teacher=st.none() | NAMES,
        keep=st.sampled_from(["even", "spaced", "last", "1,3,6"]),
        text_column=st.none() | st.lists(NAMES, min_size=1),
        test=st.lists(NAMES),
        pooling=st.none() | st.just(["mean", "cls"]),
        max_length=st.none() | st.integers(1),
        live=st.booleans(),
    ),
    training=st.fixed_dictionaries(
        {},
        optional={
            "num_train_epochs": st.floats(1e-9, 1e9),
            "learning_rate": st.floats(1e-12, 1),
            "weights": st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
            "seed": st.integers(0, 2**32 - 1),
            "bf16": st.booleans(),
            "warmup_steps": st.floats(0, 1e6),
            "strategy": st.just("cyclic"),
        },
    ),
)
def test_dump_and_config_are_inverse(folder: Path, options: DistillOptions, training: dict[str, Any]) -> None:
    path = folder / "config.yaml"
    path.write_text(Request(options, training).dump(), encoding="utf-8")
    parsed = parse(DISTILL, ["--config", str(path)])
    others = {name: value for name, (_, value) in parsed.others.items()}
    assert parsed.request.with_training(**others) == Request(options, training)


def test_dump_writes_what_differs_and_no_secret() -> None:
    options = DistillOptions(teacher="t", output="out", overwrite=True, quiet=True)
    text = Request(options, {"num_train_epochs": 2.0, "bf16": None, "hub_token": "secret"}).dump()
    assert yaml.safe_load(text) == {"output": "out", "teacher": "t", "epochs": 2.0}
    assert text.startswith("# railkd distill --config")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("- a\n- b\n", "expected a mapping"),
        ("just words\n", "expected a mapping"),
        ("a: [1\n", "not valid YAML in line"),
        ("1: 2\n", "expected names of settings as keys"),
        ("max-length: 1\nmax_length: 2\n", "occurs twice"),
    ],
)
def test_a_config_file_without_settings_is_refused(tmp_path: Path, text: str, fragment: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(RailkdError, match="run.yaml") as caught:
        load(tmp_path / "run.yaml")
    assert fragment in str(caught.value)


def test_an_empty_config_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing yet\n")
    assert load(tmp_path / "run.yaml") == {}


def test_config_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"train: caf\xe9.tsv\n")
    for name, fragment in (
        ("none.yaml", "no such file"),
        ("latin.yaml", "UTF-8"),
        (".", "can be read"),
    ):
        with pytest.raises(RailkdError, match=fragment):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (Setting("n", int), 1.5),
        (Setting("n", int), True),
        (Setting("n", int), float("inf")),
        (Setting("n", float), "many"),
        (Setting("n", float), [1]),
        (Setting("n", str), False),
        (Setting("n", str), " "),
        (Setting("n", bool), "maybe"),
        (Setting("n", bool), 1),
        (Setting("n", str, many=True), {"a": 1}),
        (Setting("n", str, many=True), [["a"]]),
    ],
)
def test_values_of_another_kind_are_refused(setting: Setting, value: Any) -> None:
    with pytest.raises(RailkdError, match="^here: expected .*, got "):
        convert(setting, value, "here")


_TEXT = st.text(min_size=1, max_size=12).filter(lambda text: text.strip() and "\x00" not in text)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "train": _TEXT,
            "test": st.lists(_TEXT, min_size=1, max_size=3),
            "label_map": st.lists(_TEXT, min_size=1, max_size=2),
            "live": st.just(True),
            "student_layers": st.integers(-3, 99),
            "eval_share": st.floats(-1, 1),
            "method": _TEXT,
            "weights": st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
            "learning_rate": st.floats(1e-9, 1e-1),
            "bf16": st.booleans(),
            "warmup_steps": st.integers(0, 99),
            "gradient_checkpointing": st.booleans(),
            "run_name": _TEXT,
            "redraw": st.sampled_from(["epoch", "step", "never"]),
            "lr_scheduler_kwargs": st.just({"num_cycles": 2}),
        },
    )
)
def test_the_command_of_a_config_is_read_back_to_it(config: dict[str, Any]) -> None:
    words = shlex.split(command("distill", config))
    assert words[:2] == ["railkd", "distill"]
    assert parse(DISTILL, words[2:]).complete(DISTILL).as_dict() == config
