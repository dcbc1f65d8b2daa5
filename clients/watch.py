"""The status of a running platform, again and again until Ctrl-C: a live view, or one view after the other in a file.

A platform that goes away is told and waited for, since who watches wants to see it come back. Nothing is kept: each
view is what the platform says at that moment.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from clients import status


def run(url: str, key: str | None, every_s: float) -> int:
    """Show the status every so many seconds; the exit status is 0 after Ctrl-C, and 1 where the status is refused."""
    console = Console(highlight=False)
    try:
        with _display(console) as show:
            while True:
                try:
                    answer = status.ask(url, key)
                except httpx.TransportError:
                    show(Text(f"nothing answers at {url}; waiting for it", style="yellow"))
                else:
                    if 400 <= answer.status_code < 500:
                        break  # no key, a wrong one, or not a platform: waiting would not help
                    show(_view(url, answer, console))
                time.sleep(every_s)
    except KeyboardInterrupt:
        return 0
    print(f"{answer.status_code}: {answer.text}", file=sys.stderr)
    return 1


def _view(url: str, answer: httpx.Response, console: Console) -> RenderableType:
    if answer.status_code != 200:
        return Text(f"{url}/status was answered {answer.status_code}; waiting for it", style="yellow")
    document = answer.json()
    head = f"{document['address']}  {time.strftime('%H:%M:%S')}  {document['in_flight']} in flight"
    return Group(Text(head, style="bold"), "", status.view(document, console))


@contextlib.contextmanager
def _display(console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """What shows a view: in place of the one before on a terminal, below it elsewhere."""
    if not console.is_terminal:
        yield lambda view: console.print(view, "")
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda view: live.update(view, refresh=True)
