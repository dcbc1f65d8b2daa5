"""Users that ask a model all the time, and what became of their requests."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from tests.services.polling import wait_until

SLEEP_S = 0.1


@dataclass
class Load:
    """Users that ask one gateway, or another where it does not answer; what became of their requests."""

    urls: Sequence[str]
    model: str
    count: int
    outcomes: list[tuple[int, float]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def failures(self) -> int:
        """How many requests were not answered with 200."""
        return sum(status != 200 for status, _ in self.outcomes)

    @property
    def longest_s(self) -> float:
        """The longest time that a request took."""
        return max(duration_s for _, duration_s in self.outcomes)

    def ask(self, number: int) -> None:
        """Ask until `done`."""
        urls = [*self.urls[number % len(self.urls) :], *self.urls[: number % len(self.urls)]]
        with httpx.Client(timeout=30) as client:
            while not self.done.is_set():
                begin_s = time.monotonic()
                try:
                    status = client.post(f"{urls[0]}/predict/{self.model}", json={"input": SLEEP_S}).status_code
                except httpx.ConnectError:
                    urls.append(urls.pop(0))
                    continue
                except httpx.TransportError:
                    status = 0
                    urls.append(urls.pop(0))
                self.outcomes.append((status, time.monotonic() - begin_s))

    def wait(self) -> None:
        """Wait until each user may have had some more answers."""
        count = len(self.outcomes)
        wait_until(lambda: len(self.outcomes) >= count + 3 * self.count, 30)


@contextlib.contextmanager
def load(urls: Sequence[str], model: str, count: int) -> Iterator[Load]:
    """So many users until the block ends, and a little longer. Raises AssertionError where one of them hangs."""
    requests = Load(urls, model, count)
    users = [threading.Thread(target=requests.ask, args=(number,)) for number in range(count)]
    for user in users:
        user.start()
    try:
        requests.wait()
        yield requests
        requests.wait()
    finally:
        requests.done.set()
        for user in users:
            user.join(60)
        assert not any(user.is_alive() for user in users), "a request hangs"
