"""Read and write YAML: numbers as YAML 1.2 has them, and no file that grows when it is read.

PyYAML follows YAML 1.1, in which ``010`` is the number 8, ``12:30`` is 750 and ``5e-5`` is text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

#: Values that a document may have after its aliases are replaced by what they stand for.
_MOST_VALUES = 100_000
#: Numbers of the core schema of YAML 1.2. A whole number with zeros in front is text, so that it keeps them as a name;
#: a setting that wants a number converts it.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TAGS = {_INT: "tag:yaml.org,2002:int", _FLOAT: "tag:yaml.org,2002:float"}
#: Types of YAML 1.1 that version 1.2 reads differently or as text.
_CHANGED = {*_TAGS.values(), "tag:yaml.org,2002:timestamp"}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in rows if tag not in _CHANGED]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(rows) for first, rows in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML would write these characters as line breaks, and read them back as spaces.
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None
    )


_Dumper.add_representer(str, _represent_text)
for _pattern, _tag in _TAGS.items():
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, _whole, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_yaml(text: str) -> Any:
    """Return what a YAML document holds.

    Args:
        text: the document.

    Returns:
        Mappings, lists, texts, numbers, booleans and None.

    Raises:
        ValueError: the text is not YAML, or its aliases stand for too many values.

    >>> read_yaml("{seed: 10, output: 007, time: 12:30, day: 2026-11-25, rate: 5e-5}")
    {'seed': 10, 'output': '007', 'time': '12:30', 'day': '2026-11-25', 'rate': 5e-05}
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(
            f"not valid YAML{where}: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from None
    except (RecursionError, OverflowError) as error:  # thousands of brackets
        raise ValueError(f"not valid YAML: {str(error)[:80]}") from None


def write_yaml(value: Any) -> str:
    """Return a value as YAML that `read_yaml` reads back.

    Args:
        value: of mappings, lists, texts, numbers, booleans and None. Mappings keep their order.

    Returns:
        The document.
    """
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    # Counts a node that occurs many times once, so this is fast for a document whose aliases multiply.
    if id(node) in counts:
        if counts[id(node)] == 0:
            raise ValueError("not valid YAML here: an alias stands for something that holds the alias itself")
        return counts[id(node)]
    counts[id(node)] = 0
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    inner = 0 if isinstance(node, yaml.ScalarNode) else sum(_count_values(part, counts) for part in parts)
    if inner >= _MOST_VALUES:
        raise ValueError(f"expected at most {_MOST_VALUES:,} values after aliases are replaced, got more")
    counts[id(node)] = 1 + inner
    return counts[id(node)]
