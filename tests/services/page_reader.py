"""The metrics page, read without a pause while something goes wrong."""

import re
import threading
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Platform


class Reader(threading.Thread):
    """Reads the page again and again, as Prometheus does, until it is closed or the page is gone.

    `problems` are the readings that failed; that the page is gone is none once `ending` is set.
    """

    def __init__(self, url: str, every_s: float = 0.01) -> None:
        super().__init__()
        self.url = url
        self.pages: list[tuple[float, str]] = []
        self.problems: list[str] = []
        self.ending = threading.Event()
        self._every_s = every_s
        self._closed = threading.Event()

    def close(self) -> None:
        """Read no more."""
        self._closed.set()
        self.join()

    def run(self) -> None:
        with httpx.Client(timeout=5) as client:
            while not self._closed.wait(self._every_s):
                try:
                    response = client.get(self.url)
                except httpx.HTTPError as problem:
                    if not self.ending.is_set():
                        self.problems.append(repr(problem))
                    return
                if response.status_code != 200:
                    self.problems.append(f"{response.status_code}: {response.text[:200]}")
                self.pages.append((time.monotonic(), response.text))


def values(page: str) -> dict[str, float]:
    """Every sample, written as in the page."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def state(page: str, model: str) -> str:
    """The one state that the page says the model is in."""
    found = re.findall(rf'^litport_model_state{{model="{re.escape(model)}",state="(\w+)"}} 1', page, re.MULTILINE)
    (only,) = found
    return str(only)


def metrics_url(platform: Platform) -> str:
    """Where the platform's page is."""
    url = platform.http.get("/status").json()["metrics_address"]
    assert isinstance(url, str)
    return url
