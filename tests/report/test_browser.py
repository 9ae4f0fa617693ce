"""The page in a real browser, as narrow as a phone: nothing sticks out, is fetched, or is complained of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from xlmtrain.report.model_views import view
from xlmtrain.report.report import report_page
from xlmtrain.report.run_data import RunData

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = 390
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--enable-logging=stderr", "--dump-dom"),
)
# A headless window cannot be as narrow as a phone, a frame in it can.
FRAME = """<iframe width="{width}" height="800" style="border: 0" srcdoc="{page}"></iframe><pre></pre><script>
onload = () => {{
  const inner = frames[0], page = inner.document;
  page.querySelectorAll("details").forEach(one => one.open = true);
  const cut = [...page.querySelectorAll("svg text")].filter(text => {{
    const [own, all] = [text, text.ownerSVGElement].map(one => one.getBoundingClientRect());
    return own.left < all.left || own.right > all.right || own.top < all.top - 1 || own.bottom > all.bottom + 1;
  }}).map(text => text.textContent);
  document.querySelector("pre").textContent = JSON.stringify({{
    beyond: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    pictures: page.querySelectorAll("svg").length, cut,
    fetched: inner.performance.getEntriesByType("resource").map(one => one.name),
  }});
}}
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def look(page: str, directory: Path) -> dict[str, Any]:
    """What the browser makes of a page on a phone."""
    path = directory / "frame.html"
    path.write_text(FRAME.format(width=PHONE, page=escape(page)), encoding="utf-8")
    command = [str(BROWSER), *OPTIONS, f"--user-data-dir={directory / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall(r"<pre>(.*?)</pre><script>", done.stdout, re.DOTALL)
    return {**json.loads(unescape(found)), "console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}


def test_a_report_fits_a_phone(run: Path, tmp_path: Path) -> None:
    record = RunData(run)
    record.name = "a_run_with_a_name_that_" + "goes_on_" * 12
    found = look(report_page([(record, view(record, "de", 5))]), tmp_path)
    assert found.pop("pictures") > 8
    assert found == {"beyond": 0, "cut": [], "fetched": [], "console": []}


def test_what_does_not_fit_is_noticed(tmp_path: Path) -> None:
    wide = '<!DOCTYPE html><p style="width: 500px">x<svg width="9" height="9"><text x="-90">x</text></svg><img src="http://127.0.0.1:9/">'
    found = look(wide + "<script>console.error('no')</script>", tmp_path)
    assert found["beyond"] > 500 - PHONE
    assert found["cut"] == ["x"]
    assert found["fetched"]
    assert found["console"]
