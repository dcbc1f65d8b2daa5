"""The load generator's own ceiling: what it reaches against a server that does nothing."""

from benchmarks.load import generator, null_server, workload
from benchmarks.load.request import COMPLETIONS, ReadAs, calls
from clients.record import window
from configs.bench import Workload

_REQUESTS = 400


def ceiling_per_s(read_as: ReadAs, parts: int, users: int, processes: int) -> float:
    """Requests a second that the load generator reaches against a server that answers at once with `parts` parts."""
    items = workload.make(Workload(), _REQUESTS, 0)
    with null_server.running(read_as, parts) as url:
        result = generator.generate(url, read_as, calls(items, COMPLETIONS, "null"), users, 60, processes)
    begin_s, end_s = window(result.records)
    return len(result.records) / (end_s - begin_s)
