"""The page in a browser: self-contained, safe, readable on a phone and usable by keyboard."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from railkd.errors import RailkdError
from railkd.report import require_extra
from railkd.report.html import arrange_differences, html
from report.make_records import FORMULA, HOSTILE

PLOTS = ("forest", "cost", "shipped", "curve", "reliability")
Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, page: Path) -> Opened:
    """Return a function that loads the page with empty logs, e.g. ``opened(width=390, scheme="dark")``."""

    def at(width: int = 1280, scheme: str = "light") -> Any:
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(page.as_uri())
        return browser

    return at


def test_it_opens_from_a_file_without_console_messages_or_requests(opened: Opened, page: Path) -> None:
    browser = opened()
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert page.as_uri() in requests and {url for url in requests if not url.startswith(("file:", "data:"))} == set()
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
    assert page.stat().st_size < 3_000_000


def test_names_from_records_are_shown_as_text(opened: Opened) -> None:
    browser = opened()
    assert browser.execute_script("return document.scripts.length") == 0
    for where, names in (
        ("#scores table", {HOSTILE, FORMULA}),
        ("#training svg", {HOSTILE, FORMULA}),
        ("#differences svg text", {FORMULA}),
        ("#origin", {HOSTILE, FORMULA}),
    ):
        texts = browser.execute_script(
            f"return [...document.querySelectorAll('{where}')].map(one => one.textContent).join(' ')"
        )
        assert {name for name in names if name in texts} == names, where


def test_every_plot_is_present_and_has_a_title_and_a_description(opened: Opened) -> None:
    plots = opened().execute_script(
        "return [...document.querySelectorAll('svg')].map(plot => { const box = plot.getBoundingClientRect();"
        "const ids = plot.getAttribute('aria-labelledby').split(' ');"
        "return [ids[0], box.width, box.height, plot.querySelectorAll('path').length,"
        " ids.map(id => document.getElementById(id).textContent)]; })"
    )
    assert {name for name in PLOTS if any(plot[0].startswith(name) for plot in plots)} == set(PLOTS)
    for _, width, height, paths, (title, described) in plots:
        assert width > 50 and height > 50 and paths > 3 and title and described


def test_ids_are_unique(opened: Opened) -> None:
    ids = opened().execute_script("return [...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways(opened: Opened, width: int) -> None:
    browser = opened(width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide, seen = browser.execute_script(
        "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    )
    assert wide == seen <= width


def test_it_follows_light_and_dark_plots_included(opened: Opened) -> None:
    look = (
        "const of = (element, name) => getComputedStyle(element)[name];"
        "const word = [...document.querySelectorAll('svg text')].find(one => one.textContent === 'rail-kd-l');"
        "return [of(document.body, 'backgroundColor'), of(document.body, 'color'),"
        " of(document.querySelector('#forest0-t').parentElement.querySelector('text'), 'fill'), of(word, 'fill')]"
    )
    light, dark = opened().execute_script(look), opened(scheme="dark").execute_script(look)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    for paper, ink, *colours in (light, dark):
        assert _contrast(paper, ink) > 7 and all(_contrast(paper, colour) > 4.5 for colour in colours)


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours ``rgb(r, g, b)``, by the Web Content Accessibility Guidelines."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_the_keyboard_reaches_every_section(opened: Opened) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = opened()
    sections = browser.execute_script("return [...document.querySelectorAll('section')].map(one => one.id)")
    reached = []
    for _ in range(len(sections) + 1):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.execute_script("return document.activeElement.getAttribute('href')"))
    assert reached == ["#short", *(f"#{name}" for name in sections)]  # the skip link, then the list
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert browser.current_url.endswith(f"#{sections[-1]}")
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].every(one => one.tabIndex === 0 && one.ariaLabel)"
    )
    assert boxes is True


def test_headings_are_nested_and_table_headers_have_a_scope(opened: Opened) -> None:
    browser = opened()
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))"
    )
    assert levels.count(1) == 1 and all(after - before <= 1 or after == 4 for before, after in pairwise(levels))
    assert browser.execute_script("return [...document.querySelectorAll('th')].every(one => one.scope)") is True
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_a_missing_library_is_refused_with_the_extra_to_install() -> None:
    with pytest.raises(RailkdError, match=r"needs matplotlib. Fix: pip install 'railkd\[report\]'"):
        require_extra(lambda name: None if name == "matplotlib" else name)


def test_an_empty_report_is_still_a_page(report: dict[str, Any]) -> None:
    bare: dict[str, Any] = {name: type(value)() for name, value in report.items()}
    bare |= {
        "name": "empty", "runs": {"finished": 0, "failed": 0}, "contrasts": {"rows": [], "named": False, "family": 0},
        **{t: {d: {"domain": d, "columns": [], "groups": []} for d in ("in", "out")} for t in ("scores", "asked")},
        "times": {"rows": [], "passes": []}, "missing": {"curves": "The runs have no training log."},
        "environment": {"versions": {}, "machines": [], "commits": [], "started": [], "warnings": []},
    }  # fmt: skip
    text = html(bare)
    assert "The runs have no training log." in text and "<svg" not in text


def test_the_glance_holds_every_difference_and_marks_what_is_shown(report: dict[str, Any]) -> None:
    cells = {
        (table["domain"], table["student"], arm, name): cell
        for table in arrange_differences(report)
        for arm, row in table["rows"]
        for name, cell in zip(table["columns"], row, strict=True)
        if cell
    }
    rows = [row for row in report["differences"] if row["points"]]
    assert len(cells) == len(rows) > 10
    for row in rows:
        name = "all tasks" if row["over"] == "tasks" else row["task"] + (f", {row['set']}" if row["show_set"] else "")
        cell = cells[row["domain"], row["student"], row["arm"], name]
        assert cell["mean"] == row["mean"] and 0 <= cell["strength"] <= 1
        assert cell["shown"] == (row["low"] is not None and (row["low"] > 0 or row["high"] < 0))
    assert max(cell["strength"] for cell in cells.values()) == 1


@pytest.fixture
def plain(browser: Any, report: dict[str, Any], tmp_path: Path) -> Any:
    """Return the browser at a page of the report itself."""
    (tmp_path / "report.html").write_text(html(report), encoding="utf-8")
    browser.get((tmp_path / "report.html").as_uri())
    return browser


def test_blocks_are_shown_as_tables_of_the_numbers_in_the_report(plain: Any, report: dict[str, Any]) -> None:
    tables = plain.execute_script(
        "const cells = row => [...row.querySelectorAll('td')].map(one => one.textContent);"
        "return [...document.querySelectorAll('#blocks .matrix')].map(table =>"
        " [...table.querySelectorAll('tbody tr')].map(cells))"
    )
    shares = [row["shares"] for row in report["coverage"]]
    similar = [row[moment] for row in report["similarity"] for moment in ("before", "after") if row[moment]]
    assert shares and similar
    texts = [[[f"{100 * v:.0f}" if v > 0 else "·" for v in line] for line in matrix] for matrix in shares]
    texts += [[[f"{v:.2f}" if v > 0 else "·" for v in line] for line in matrix] for matrix in similar]
    assert tables == texts


def test_an_arm_can_be_hidden_without_scripts(plain: Any, report: dict[str, Any]) -> None:
    number = report["arms"].index("rail-kd-l")
    rows = (
        f"return [...document.querySelectorAll('.arm{number}')]"
        ".map(row => [row.offsetParent !== null, row.textContent])"
    )
    before = plain.execute_script(rows)
    assert len(before) > 4 and any(seen for seen, _ in before) and all("rail-kd-l" in text for _, text in before)
    plain.execute_script(f"document.getElementById('pick{number}').click()")
    assert not any(seen for seen, _ in plain.execute_script(rows))
    assert plain.execute_script("return document.querySelector('.arm0').offsetParent !== null")
