"""Check values from files and other processes against the types that the code declares.

pydantic does the work. It is imported when it is first used, because ``railkd --help`` needs none of this.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def from_json(kind: Any, text: str) -> Any:
    """Return the value that a JSON text holds. No value in it is converted to another type.

    A text that is not JSON or not of this type raises `ValueError`, which names the first wrong field.

    Args:
        kind: its type, such as a dataclass.
        text: the JSON.
    """
    return _checked(partial(adapter(kind).validate_json, strict=True), text)


def from_plain(kind: Any, value: Any) -> Any:
    """Return the value that dicts, lists and scalars hold.

    Parts that are not of this type raise `ValueError`, which names the first wrong field.

    Args:
        kind: its type, such as a dataclass.
        value: the parts.
    """
    return _checked(adapter(kind).validate_python, value)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's adapter of a type, which also makes its JSON schema."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _checked(validate: Any, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_context=False)
        field, problem = ".".join(map(str, first["loc"])), first["msg"]
        found = first["input"]
        got = f", got {found!r:.40}" if field and isinstance(found, str | int | float | None) else ""
        more = f" (and {len(others)} more)" if others else ""
        raise ValueError(f"{field}{': ' * bool(field)}{problem[:1].lower()}{problem[1:]}{got}{more}") from None
