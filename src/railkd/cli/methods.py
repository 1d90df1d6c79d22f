"""``railkd methods``: list the methods, show one, print the draws that a run will use, or start a new method."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from railkd.cli.new_method import check_name, write_package
from railkd.cli.verb import Verb
from railkd.errors import RailkdError
from railkd.jobs.options import option
from railkd.jobs.request import Request
from railkd.jobs.validation import Problems, check_at_least, check_effect, check_target
from railkd.mapping import REDRAWS, STRATEGIES, coverage
from railkd.training.fields import DistillationFields

#: Parameters of classes of railkd that have the name of another setting: a row of the table gives their values.
_OF_EVERY_RUN = frozenset(field.name for field in fields(DistillationFields))
_OF_DRAWS = ("student_layers", "teacher_layers", "seed", "strategy", "redraw", "candidates", "unordered")


@dataclass
class MethodsOptions:
    """Options of ``railkd methods``."""

    name: str | None = option(
        "method to describe: a name, FILE.py:CLASS or PACKAGE.MODULE:CLASS (default: list all)", metavar="NAME"
    )
    new: str | None = option("write a small package with a method of your own", metavar="NAME")
    output: str | None = option("folder for --new", metavar="DIR")
    draws: int | None = option("print this many draws, those that a run with these settings makes", metavar="N")
    student_layers: int | None = option("number of blocks of the student", metavar="N")
    teacher_layers: int | None = option("number of blocks of the teacher", metavar="N")
    seed: int = option("seed of the run", 42, metavar="N")
    strategy: str | None = option("how to draw blocks (default: the method's own)", choices=list(STRATEGIES))
    redraw: str | None = option("when to draw again (default: the method's own)", choices=list(REDRAWS))
    candidates: str | None = option("blocks to draw from (default: the method's own)", choices=["intermediate", "all"])
    unordered: bool = option("keep the blocks in the order in which they are drawn, instead of by depth", False)


def check(request: Request[MethodsOptions]) -> None:
    """Check the options without importing torch."""
    options = request.options
    problems = Problems()
    if options.new is not None:
        problems.require(options, "output")
        if options.output:
            check_target(problems, Path(options.output))
    else:
        check_effect(problems, options, "without --new", "output")
    if options.draws is not None:
        if options.name is None:
            problems.add("--draws: expected the name of a method, e.g. railkd methods rail-kd-l --draws 10, got none")
        problems.require(options, "student_layers", "teacher_layers")
    else:
        check_effect(problems, options, "without --draws", *_OF_DRAWS)
    check_at_least(problems, options, 1, "draws", "student_layers", "teacher_layers")
    problems.report()


def run(request: Request[MethodsOptions]) -> None:
    """Print the table of methods, one method, or its draws.

    Args:
        request: the options.
    """
    options = request.options
    if options.new is not None:
        _write_new(options.new, Path(str(options.output)))
        return
    if options.name is None:
        _print_table()
        return
    from railkd.objectives import method_spec

    spec = method_spec(options.name)
    if options.draws is not None:
        _print_draws(options, options.name, options.draws)
        return
    print(f"{spec.name}: {spec.paper}")
    print(f"blocks read: {spec.reads}\npooling: {spec.pooling or 'none'}\ncost: {_cost(spec)}")
    print(f"weights of CE, KD, intermediate: {_weights(spec)}")
    for name, value in spec.recipe.items():
        print(f"sets --{name.replace('_', '-')} {','.join(value)}, unless it is given")
    parameters = spec.parameters
    for name, default in spec.options.items():
        if name not in _OF_EVERY_RUN:
            choices = f" Choices: {', '.join(parameters[name].choices or ())}." if parameters[name].choices else ""
            print(f"option --{name.replace('_', '-')}: {parameters[name].help}{choices} (default: {default})")


def _write_new(name: str, folder: Path) -> None:
    from railkd.objectives import known_methods

    check_name(name, known_methods())
    print(f"written: {', '.join(map(str, write_package(name, folder)))}")
    print(f"next: pip install -e '{folder}[test]', then python -m pytest {folder} and railkd methods {name}")


def _print_table() -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from railkd.objectives import METHODS, known_methods, method_spec

    table = Table("name", "paper", "blocks read", "pooling", "CE, KD, layers", "cost")
    try:
        names = known_methods()
    except RailkdError as error:  # two packages declare one name
        names = list(METHODS)
        print(f"the methods of installed packages are left out: {error}")
    for name in names:
        try:
            spec = method_spec(name)
        except RailkdError as error:
            table.add_row(name, Text(f"cannot be used: {error}"))
            continue
        table.add_row(spec.name, spec.paper, spec.reads, spec.pooling or "-", _weights(spec), _cost(spec))
    console = Console()
    # In a pipe or file rich would wrap the lines at 80 columns.
    Console(width=None if console.is_terminal else 240).print(table)


def _cost(spec: Any) -> str:
    # What a method needs beside plain fine-tuning. Students that share a cache share the teacher pass.
    if not spec.needs_teacher:
        return "no teacher"
    options = spec.options
    needs = ["teacher pass: logits" + (f", {spec.pooling} states" if spec.pooling else "")]
    read = ["read once to fit the targets"] if spec.fits else []
    if "negatives" in options:
        each = "for each class and step" if spec.objective.negatives_by_class else "a step"
        read.append(f"{options['negatives']} more rows {each}")
    if read:
        needs.append(f"a cache: {', '.join(read)}")
    return "; ".join(needs)


def _weights(spec: Any) -> str:
    # The method's own weights of CE, KD and the intermediate term, scaled to a sum of 1 over the terms it has.
    from railkd.objectives import TERMS
    from railkd.objectives.base import normalised_weights

    own = normalised_weights(spec.weights, spec.objective.terms)
    return ", ".join(str(Fraction(own[term]).limit_denominator(1000)) if term in own else "-" for term in TERMS)


def _print_draws(options: MethodsOptions, name: str, count: int) -> None:
    from railkd.objectives import method_spec

    spec = method_spec(name)
    given = {
        "strategy": options.strategy,
        "redraw": options.redraw,
        "candidates": options.candidates,
        "ordered": False if options.unordered else None,
    }
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    student, teacher = options.student_layers or 1, options.teacher_layers or 1
    # The draws do not depend on the widths. These fit the default shared space.
    draws = spec.build((student, 128), (teacher, 128), **chosen).draws
    if draws is None:
        raise RailkdError(f"{name} draws no blocks, it reads {spec.reads}. Methods that draw: rail-kd-l, rail-kd-c")
    moments = [draws.at(options.seed, epoch=index, step=index) for index in range(count)]
    unit = {"epoch": "epoch", "step": "step", "never": "any epoch"}[draws.redraw]
    print(
        f"{name}, seed {options.seed}: {draws.m} of the teacher blocks {_joined(draws.candidates)}, "
        f"strategy {draws.strategy}, redraw: {draws.redraw}"
    )
    for index, drawn in enumerate(moments[:1] if draws.redraw == "never" else moments):
        at = unit if draws.redraw == "never" else f"{unit} {index}"
        print(f"{at}: teacher blocks {_joined(drawn)} -> student blocks {_joined(range(1, draws.m + 1))}")
    print("coverage: how often each teacher block teaches student block 1, 2, ...")
    for block, counts in coverage(moments, draws.candidates).items():
        print(f"teacher block {block}: {_joined(counts)}; {sum(counts)} of {count}")


def _joined(numbers: Any) -> str:
    return " ".join(map(str, numbers))


_ABOUT = "List the distillation methods, show one in full, print the draws of a run, or start a method of your own."
_EXAMPLE = "railkd methods rail-kd-l --draws 10 --student-layers 3 --teacher-layers 12 --seed 42"
VERB = Verb("methods", _ABOUT, _EXAMPLE, MethodsOptions, run, check, "name")
