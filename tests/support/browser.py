"""A headless Chromium, where there is one."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = "chromium", "chromium-browser", "google-chrome", "chrome"


@contextmanager
def chromium():
    """Playwright's browser; without it or a Chromium, the test is skipped with the reason."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no driver: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)  # None: one that Playwright installed
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=as_root)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@contextmanager
def open_page(browser, path, **options):
    """The page in the file `path`, and a list of what went wrong in it or was asked for."""
    page = browser.new_page(**options)
    complaints = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(path.as_uri())
    assert complaints == [path.as_uri()]
    complaints.clear()
    yield page, complaints
    page.close()
