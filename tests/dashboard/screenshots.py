"""The pictures of the docs: ``python -m tests.dashboard.screenshots``, or ``make screenshots``.

They show the site of :mod:`tests.dashboard.site` in the machine's own Chromium; without one, nothing is done and the
command says why.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.dashboard.site import PATIENCE_SECONDS, example_site

FOLDER = Path(__file__).parents[2] / "docs"
#: Name of the picture, path of the page, width and height of the window, and what is waited for.
PICTURES = (
    ("dashboard", "", 1280, 1180, "#workers tbody td >> nth=1"),
    ("dashboard-phone", "", 390, 844, "#workers tbody td >> nth=1"),
    ("dashboard-items", "items", 1280, 640, "table.items"),
    ("dashboard-dead", "dead", 1280, 760, "table.reasons"),
    ("dashboard-money", "money", 1280, 760, "table.costs"),
)
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str | None:
    """What is missing for pictures, in a sentence; None where nothing is."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install playwright"
    return None if any(map(shutil.which, CHROMIUMS)) else "no Chromium is installed: apt-get install chromium"


def take(folder: Path, names: set[str] | None = None) -> list[Path]:
    """Take the pictures, or some of them; returns their files."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    program = next(filter(None, map(shutil.which, CHROMIUMS)))
    taken = []
    with sync_playwright() as driver, example_site() as site:
        sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium's sandbox refuses root
        browser: Any = driver.chromium.launch(executable_path=program, args=sandbox)
        for name, path, width, height, awaited in PICTURES:
            if names is not None and name not in names:
                continue
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.set_default_timeout(PATIENCE_SECONDS * 1000)
            page.goto(site.url + path)
            page.locator(awaited).first.wait_for()
            file = folder / f"{name}.png"
            page.screenshot(path=file)
            taken.append(file)
            page.close()
        browser.close()
    return taken


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(f"No pictures are taken: {reason}", file=sys.stderr)
        return
    for file in take(options.folder):
        print(file)


if __name__ == "__main__":
    main()
