"""The state of a running platform, shown repeatedly until Ctrl-C: a live view, or views one below the other in a file.

While the platform does not answer, the view says so and the watching goes on, to show when the platform comes back.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from clients import rejection, status
from clients.documents import Status, read_status

View = Callable[[Status, Console], RenderableType]


def run(url: str, key: str | None, every_s: float, view: View) -> int:
    """Show this view every `every_s` seconds; the exit status is 0 after Ctrl-C, and 1 when a request is rejected."""
    console = Console(highlight=False)
    try:
        with _display(console) as show:
            while True:
                try:
                    answer = status.fetch(url, key)
                except httpx.TransportError:
                    show(Text(f"nothing answers at {url}; waiting for it", style="yellow"))
                else:
                    if 400 <= answer.status_code < 500:
                        break  # no key, a wrong one, or not a platform: waiting would not help
                    show(_page(url, answer, console, view))
                time.sleep(every_s)
    except KeyboardInterrupt:
        return 0
    return rejection.report(answer.status_code, answer.text)


def _page(url: str, answer: httpx.Response, console: Console, view: View) -> RenderableType:
    if answer.status_code != 200:
        return Text(f"{url}/status was answered {answer.status_code}; waiting for it", style="yellow")
    document = read_status(answer.content)
    head = f"{document.address}  {time.strftime('%H:%M:%S')}  {document.in_flight} in flight"
    return Group(Text(head, style="bold"), "", view(document, console))


@contextlib.contextmanager
def _display(console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """A function that shows a view: on a terminal in place of the last one, elsewhere below it."""
    if not console.is_terminal:
        yield lambda view: console.print(view, "")
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda view: live.update(view, refresh=True)
