"""``railkd env``: what a bug report needs to say of a machine. No paths, no environment variables."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass

from railkd.cli.verb import Verb
from railkd.jobs.options import option
from railkd.jobs.request import Request
from railkd.runtime.environment import versions


@dataclass
class EnvOptions:
    """How it is printed."""

    json: bool = option("as JSON", False)


def facts() -> dict[str, str | int | bool]:
    """Name -> fact, versions first."""
    from railkd.runtime.hardware import machine

    return {**versions(), "platform": platform.platform(), **machine()}


def run(request: Request[EnvOptions]) -> None:
    """A line for each fact."""
    options = request.options
    found = facts()
    if options.json:
        print(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {('yes' if value else 'no') if isinstance(value, bool) else value}")


VERB = Verb(
    name="env",
    about="Versions and machine, for bug reports.",
    example="railkd env --json",
    options=EnvOptions,
    run=run,
)
