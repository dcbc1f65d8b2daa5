"""Debian's Chromium, without a screen, for tests that look at pages; where it is missing they say so."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"NOT TESTED IN A BROWSER: {CHROMIUM} is missing; install Debian's package chromium"
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser to be driven until the block ends. Not for the session: meanwhile no other test could use asyncio."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()
