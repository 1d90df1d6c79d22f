"""Write docs/record.schema.json, the JSON schema of a run record: ``make schema``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from railkd.records import RunRecord
from railkd.runtime.files import write_json
from railkd.runtime.typed import adapter

SCHEMA_FILE = Path(__file__).resolve().parents[1] / "docs" / "record.schema.json"


def schema_of_records() -> dict[str, Any]:
    """Return the schema; the descriptions are those of the docstring."""
    about, _, attributes = inspect.cleandoc(RunRecord.__doc__ or "").partition("Attributes:\n")
    described = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", attributes, re.MULTILINE | re.DOTALL))
    schema: dict[str, Any] = adapter(RunRecord).json_schema()
    for name, field in schema["properties"].items():
        del field["title"]
        field["description"] = " ".join(described[name].split())
    about = about.strip().replace("``", "").replace("`", "")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "description": about}


if __name__ == "__main__":
    write_json(SCHEMA_FILE, schema_of_records())
