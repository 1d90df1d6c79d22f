"""``railkd env``: print the versions and the machine, for bug reports, without paths or environment variables."""

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
    """Options of ``railkd env``."""

    json: bool = option("print JSON", False)


def facts() -> dict[str, str | int | bool]:
    """Return the versions, the platform and the facts of the machine, by name."""
    from railkd.runtime.hardware import machine

    return {**versions(), "platform": platform.platform(), **machine()}


def run(request: Request[EnvOptions]) -> None:
    """Print a line for each fact.

    Args:
        request: the options.
    """
    found = facts()
    if request.options.json:
        print(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {('yes' if value else 'no') if isinstance(value, bool) else value}")


VERB = Verb("env", "Print the versions and the machine, for bug reports.", "railkd env --json", EnvOptions, run)
