"""Methods from outside: registered, installed or at an address; their options; and what is refused in words."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

import tiny
from railkd.cli import main
from railkd.cli.verbs import find_verb
from railkd.cli.words import parse
from railkd.errors import RailkdError
from railkd.objectives import METHODS, MethodSpec, Objective, known_methods, method_spec, register
from railkd.objectives.finetune import Finetune
from railkd.objectives.kd import KD
from railkd.runtime import addresses
from railkd.training import DistillationTrainingArguments

MINE = '''
"""A method."""
from typing import Literal

from railkd.objectives import Objective


class Mine(Objective):
    """Adds nothing of its own.

    Args:
        margin: the least distance,
            in the teacher's space.
    """

    paper = "Nobody 2026"
    terms = ("ce", "kd")

    def __init__(self, student_shape, teacher_shape, *, margin: float = 0.1, kind: Literal["a", "b"] = "a",
                 sizes: tuple[int, ...] | None = None, sharp: bool = False, **options):
        super().__init__(student_shape, teacher_shape, **options)
        self.margin, self.kind, self.sizes, self.sharp = margin, kind, sizes, sharp
'''
SHAPES = ((3, 8), (6, 8))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a class in a file beside."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return "mine.py:Mine"


def test_a_class_in_a_file_is_a_method_with_its_options(mine: str) -> None:
    spec = method_spec(mine)
    assert (spec.name, spec.paper, spec.pooling, spec.needs_teacher, spec.ours) == (
        mine,
        "Nobody 2026",
        None,
        True,
        False,
    )
    assert spec.options == {"margin": 0.1, "kind": "a", "sizes": None, "sharp": False}
    told = {name: (o.kind, o.many, o.choices, o.help) for name, o in spec.parameters.items()}
    assert told == {
        "margin": (float, False, None, "the least distance, in the teacher's space."),
        "kind": (str, False, ("a", "b"), ""),
        "sizes": (int, True, None, ""),
        "sharp": (bool, False, None, ""),
    }
    built: Any = spec.build(*SHAPES, margin=0.3, sizes=[1, 2])
    assert (built.margin, built.sizes) == (0.3, [1, 2])
    with pytest.raises(RailkdError, match="mine.py:Mine has no option 'margn'; .*Did you mean 'margin'"):
        spec.build(*SHAPES, margn=0.3)


def test_options_are_flags_and_config_keys_of_the_method_that_is_named(mine: str, tmp_path: Path) -> None:
    distill = find_verb("distill")
    words = ["--margin", "0.2", "--kind=b", "--sizes", "1", "2", "--sharp"]
    found = parse(distill, ["--method", mine, *words]).complete(distill)
    wanted = {"method": mine, "margin": 0.2, "kind": "b", "sizes": [1, 2], "sharp": True}
    assert found.training == wanted
    (tmp_path / "run.yaml").write_text(found.dump())
    again = parse(distill, ["--config", "run.yaml", "--trust-methods"]).complete(distill)
    assert again.as_dict() == found.as_dict() == wanted
    args: Any = DistillationTrainingArguments("out", **wanted)
    assert args.objective_options() == {"margin": 0.2, "kind": "b", "sizes": [1, 2], "sharp": True} | {
        "weights": None,
        "temperature": 1.0,
    }
    for wrong, said in (
        (["--kind", "c"], "--kind: expected a or b, got 'c'"),
        (["--margin", "wide"], "--margin: expected a number, got 'wide'"),
        (["--margn", "1"], "unknown setting 'margn'. Did you mean 'margin'"),
        (["--no-sharp", "1"], "--no-sharp: expected no value"),
        (["--margin", "1", "2"], "--margin: expected one value, got 2 values"),
    ):
        with pytest.raises(RailkdError, match=said):
            parse(distill, ["--method", mine, *wrong]).complete(distill)


def test_one_method_from_outside_is_shown_in_full(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", mine]) == 0
    out = capsys.readouterr().out
    assert "mine.py:Mine: Nobody 2026" in out and "option --kind:  Choices: a, b. (default: a)" in out
    assert "option --margin: the least distance, in the teacher's space. (default: 0.1)" in out


BROKEN = {
    "missing.py:Mine": "method file 'missing.py': expected a Python file that can be read",
    "mine.py:Mein": "'mine.py:Mein': found no 'Mein' there. Did you mean 'Mine'",
    "mine.py:Literal": "expected a subclass of railkd.objectives.Objective",
    "mine.py:": "expected FILE.py:CLASS",
    "fails.py:Mine": "'fails.py' fails when it is run: ZeroDivisionError: division by zero. Fix: see fails.py, line 3",
    "typo.py:Mine": "'typo.py' fails when it is run: SyntaxError.* Fix: see typo.py, line 2",
    "leaves.py:Mine": "'leaves.py' fails when it is run: SystemExit: 3. Fix: see .*, line 1",
    "no_such_package.here:Mine": "the module no_such_package.here cannot be imported: .*Fix: install its package",
    "states.py:Mine": "reads states, but the class does not say which. Fix: add the line pooling = 'mean'",
    "taken.py:Mine": "does not take weights, temperature, .* Fix: end its parameters with ..options",
    "odd.py:Mine": "expected bool, int, float, str, .* for the option 'x', got dict",
    "bare.py:Mine": "expected a default for the option 'x', got none",
}
FILES = {
    "fails.py": "import math\n\n1 / 0\n",
    "typo.py": "import math\nclass Mine(:\n",
    "leaves.py": "raise SystemExit(3)\n",
    "states.py": MINE.replace(
        '    terms = ("ce", "kd")\n', "    def intermediate(self, student, teacher, draw): ...\n"
    ),
    "taken.py": MINE.replace(", **options)", ")"),
    "odd.py": MINE.replace("margin: float = 0.1", "x: dict = None"),
    "bare.py": MINE.replace("margin: float = 0.1", "x: float"),
}


@pytest.mark.parametrize(("address", "said"), BROKEN.items(), ids=BROKEN)
def test_code_that_cannot_be_a_method_is_refused_with_the_line(mine: str, address: str, said: str) -> None:
    tiny.write_files(Path(), FILES)
    with pytest.raises(RailkdError, match=said):
        method_spec(address)


def test_an_edited_file_is_another_method_with_another_digest(mine: str) -> None:
    before = method_spec(mine)
    assert method_spec(mine).objective is before.objective and len(before.digest) == 32
    Path("mine.py").write_text(MINE.replace("0.1", "0.5"))
    assert method_spec(mine).options["margin"] == 0.5 and method_spec(mine).digest != before.digest
    Path("copies").mkdir()
    (Path("copies") / addresses.copy_name(Path("mine.py"))).write_text(MINE)
    with addresses.copies(Path("copies")):  # as in a worker of a bench
        assert method_spec(mine).options["margin"] == 0.1


def test_an_option_with_the_name_of_a_setting_is_refused(mine: str) -> None:
    Path("mine.py").write_text(MINE.replace("margin", "max_length"))
    distill = find_verb("distill")
    with pytest.raises(RailkdError, match="its option 'max_length' has the name of a setting of every run"):
        parse(distill, ["--method", mine, "--warmup-steps", "1"]).complete(distill)


class Registered(Objective):
    """A method of this file."""

    terms = ("ce", "kd")


def test_a_registered_method_is_known_by_name_in_this_process() -> None:
    row = register(MethodSpec.of(Registered, "registered-here", paper="this file"))
    assert method_spec("registered-here") is row and "registered-here" in known_methods()
    assert "registered-here" not in METHODS and register(row) is row
    assert DistillationTrainingArguments("out", method="registered-here").method == "registered-here"
    for name, said in (("kd", "'kd' cannot be registered"), ("registered-here", "is registered already")):
        with pytest.raises(RailkdError, match=said):
            register(MethodSpec(name, Finetune, "-", "-"))
    for what, said in ((int, "expected a subclass"), (Objective, "expected a subclass")):
        with pytest.raises(RailkdError, match=said):
            register(MethodSpec.of(what, "not-one"))  # type: ignore[arg-type]
    with pytest.raises(RailkdError, match="has no option 'wide'"):
        register(MethodSpec.of(KD, "odd-settings", settings={"wide": 1}))


def package(folder: Path, name: str, *methods: str) -> None:
    """Write what pip leaves of a package: its code, and the entry points beside it."""
    module = name.replace("-", "_")
    points = "".join(f"{method} = {module}:Mine\n" for method in methods)
    described = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}
    described["entry_points.txt"] = f"[railkd.methods]\n{points}"
    files = {f"{module}-1.0.dist-info/{file}": text for file, text in described.items()}
    tiny.write_files(folder, files | {f"{module}.py": f"import pathlib\npathlib.Path('ran').touch()\n{MINE}"})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed into."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("one_package", "two_package"):
        sys.modules.pop(module, None)


def test_an_installed_package_is_found_without_importing_it(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package(site, "one-package", "theirs")
    assert "theirs" in known_methods() and not (site / "ran").exists()
    assert method_spec("theirs").paper == "Nobody 2026" and (site / "ran").exists()
    assert main(["methods"]) == 0 and "Nobody 2026" in capsys.readouterr().out
    with pytest.raises(RailkdError, match="unknown method 'theirz'.*Did you mean 'theirs'"):
        method_spec("theirz")
    package(site, "two-package", "theirs")
    with pytest.raises(RailkdError, match="packages (one|two)-package and (one|two)-package both declare .*'theirs'"):
        known_methods()
    package(site, "two-package", "kd")
    with pytest.raises(RailkdError, match="the package two-package declares the method 'kd', which is a method of"):
        known_methods()
    assert method_spec("kd") is METHODS["kd"]


@pytest.mark.parametrize("leaves", ["sys.exit()", "sys.exit('bye')", "1 / 0", "class Mine: pass", "Mine = [int]"])
def test_a_package_that_cannot_be_used_is_a_row_of_the_table(
    site: Path, leaves: str, capsys: pytest.CaptureFixture[str]
) -> None:
    package(site, "one-package", "theirs")
    package(site, "two-package", "broken")
    (site / "two_package.py").write_text(f"import sys\n{leaves}\n")
    assert main(["methods"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any("broken" in row and "cannot be used" in row for row in rows)
    assert any("theirs" in row and "Nobody 2026" in row for row in rows) and any("rail-kd-l" in row for row in rows)
    assert main(["methods", "broken"]) == 2 and "broken" in capsys.readouterr().err
    package(site, "two-package", "theirs")
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    assert "both declare the method 'theirs'" in out and "rail-kd-l" in out


def refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_a_file_that_names_code_runs_nothing_until_the_user_allows_it(
    mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(f"import pathlib\npathlib.Path('ran').touch()\n{MINE}")
    Path("run.yaml").write_text(f"method: {mine}\ntrain: none.tsv\n")
    grid = "name: g\ntasks: {t: {train: none.tsv, test: [none.tsv]}}\nteacher: none\nstudents: [{layers: 1}]\n"
    Path("grid.yaml").write_text(f"{grid}methods: [kd, '{mine}']\n")
    Path("sly.yaml").write_text(f"method: {mine}\ntrust_methods: true\n")
    Path("sly-grid.yaml").write_text(f"{grid}methods: [kd, '{mine}']\nsettings: {{trust_methods: true}}\n")
    for words in (["distill", "--config", "run.yaml"], ["distill", "--config", "sly.yaml"], ["bench", "grid.yaml"]):
        assert "names Python code" in refused([*words, "--output", "out"], capsys)
    metrics = "metrics: 'auroc,mine.py:cost'"
    Path("metrics.yaml").write_text(f"{metrics}\ntrain: none.tsv\n")
    sly = f"{{finetune: none, {metrics}}}"
    teachers = (
        *(sly, f"[other, {sly}]", f"[{sly}, {{labels: none.jsonl}}]", f"{{finetune: none, {metrics}, seeds: 2}}"),
        *(
            f"{{mean: [{sly}, other]}}",
            f"{{mean: [other, {{finetune: none, {metrics}, seeds: [3, 4]}}], weights: [1, 2]}}",
        ),
        f"{{finetune: none, {metrics}, seeds: [3]}}",
    )
    places = (
        ("teacher: none", "teacher: {}"),
        ("[none.tsv]", "[none.tsv], teacher: {}"),
        ("layers: 1", "layers: 1, teacher: {}"),
    )
    for number, text in enumerate(
        (
            f"{grid}methods: [kd]\nsettings: {{{metrics}}}\n",
            f"{grid}methods: [kd]\n".replace("[none.tsv]", f"[none.tsv], settings: {{{metrics}}}"),
            *(f"{grid}methods: [kd]\n".replace(old, new.format(one)) for old, new in places for one in teachers),
        )
    ):
        Path(f"{number}.yaml").write_text(text)
        assert "metrics: 'auroc,mine.py:cost' names Python code" in refused(
            ["bench", f"{number}.yaml", "--output", "out"], capsys
        )
    for verb in ("finetune", "distill", "evaluate"):
        assert "metrics.yaml: metrics: " in refused([verb, "--config", "metrics.yaml"], capsys)
        words = ["--config", "metrics.yaml", "--metrics", "auroc"]
        assert parse(find_verb(verb), words).request.options.metrics == ["auroc"]
    assert "trust_methods has no effect in a file" in refused(
        ["distill", "--config", "sly.yaml", "--trust-methods", "--output", "out"], capsys
    )
    assert "settings.trust_methods: it has no effect in a file" in refused(
        ["bench", "sly-grid.yaml", "--output", "out", "--trust-methods"], capsys
    )
    assert "names Python code" in refused(["distill", "--config", "run.yaml", "--no-trust-methods"], capsys)
    assert not Path("ran").exists()
    distill = find_verb("distill")
    assert parse(distill, ["--config", "sly.yaml".replace("sly", "run"), "--method", "kd"]).request.training == {
        "method": "kd"
    }
    allowed = parse(distill, ["--config", "run.yaml", "--trust-methods"]).request
    assert allowed.training == {"method": mine} and "trust_methods" not in allowed.as_dict()


def test_annotations_decide_the_type_of_an_option() -> None:
    class Typed(Objective):
        terms = ("ce",)

        def __init__(
            self,
            student_shape: Any,
            teacher_shape: Any,
            *,
            a: int | None = None,
            b: float | int = 1.0,
            c: tuple[float, float] = (0.0, 1.0),
            d: list[str] | None = None,
            e: Literal["x", "y"] | None = None,
            **options: Any,
        ) -> None:
            super().__init__(student_shape, teacher_shape, **options)

    found = MethodSpec.of(Typed).parameters
    told = [(o.kind, o.many, o.exactly, o.choices) for o in found.values()]
    assert told == [
        (int, False, None, None),
        (float, False, None, None),
        (float, True, 2, None),
        (str, True, None, None),
        (str, False, None, ("x", "y")),
    ]
