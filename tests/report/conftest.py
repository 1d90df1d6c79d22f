"""Fixtures of the report, made once per session: a synthetic benchmark, its report as dict and page, a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from railkd.report.content import content
from railkd.report.html import html
from railkd.report.study import read
from report.make_records import FORMULA, HOSTILE, TASKS, make, make_shipped

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a benchmark. Tests only read it."""
    folder = tmp_path_factory.mktemp("grid")
    make(folder)
    return folder


@pytest.fixture(scope="session")
def report(grid: Path) -> dict[str, Any]:
    return content(read([grid]))


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a benchmark whose names contain HTML and a formula."""
    folder = tmp_path_factory.mktemp("hostile")
    make(folder, [TASKS[0], replace(TASKS[1], name=FORMULA), replace(TASKS[2], name=HOSTILE)])
    make_shipped(folder / "shipped")
    path = folder / "report.html"
    path.write_text(html(json.loads(json.dumps(content(read([folder]))))), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start headless Chromium with logs of its console and its requests."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        tiny.missing("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()
