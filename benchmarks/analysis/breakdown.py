"""Where the time goes: rows whose sum is the latency that the client measured.

A row is the difference of two nested intervals, both measured, a mean over the same requests: client, front door,
upstream, the child's HTTP server, its engine. The rows add up as long as the intervals lie within each other and count
the same requests. Where they do not, the breakdown shows it: a row below zero counts as closure error, and so does a
server that counted other requests than the client.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.analysis.layer import ClientLayer, FrontDoorLayer, Layer, ServerLayer
from clients.record import RequestRecord


@dataclass(frozen=True)
class Row:
    """One part of the latency: seconds a request, mean."""

    layer: Layer
    seconds: float


@dataclass(frozen=True)
class Breakdown:
    """Rows in the order in which a request passes them; `e2e_s` is their measured total, from the scheduled time.

    `closure_error` is (sum of the rows without those below zero - e2e) / e2e. It is None when the server counted other
    requests than the client; `note` then says so.
    """

    rows: tuple[Row, ...]
    e2e_s: float
    closure_error: float | None
    note: str = ""


class Counters:
    """What the series of a server gained during a measurement; remembers how many requests each of them counted."""

    def __init__(self, gains: Mapping[str, float]) -> None:
        self.gains = gains
        self.request_counts: set[float] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.gains

    def histogram_mean_s(self, name: str) -> float:
        """The mean of a histogram, in seconds; 0 where it counted nothing."""
        return self.mean_s(f"{name}_sum", f"{name}_count")

    def mean_s(self, seconds: str, requests: str) -> float:
        """The seconds of one series over the requests of another; 0 where it counted nothing."""
        count = self.gains.get(requests, 0.0)
        self.request_counts.add(count)
        return self.gains.get(seconds, 0.0) / count if count else 0.0


RowReader = Callable[[Counters, float, Layer], "list[Row] | None"]
"""Makes rows of an engine's series: of the server's counters, the seconds behind the client or the front door, and the
layer of the way there. None when the series are not those of the engine."""


def break_down(
    records: Sequence[RequestRecord],
    server: Mapping[str, float],
    front_door: Mapping[str, float] | None = None,
    readers: Sequence[RowReader] = (),
) -> Breakdown:
    """The rows of a server's answers: `server` is what its series gained, `front_door` what the front door's did.

    The first of the `readers` that knows the series makes the rows. Without one the time behind the client is one row.
    """
    count = len(records)
    late_s = sum(record.sent_s - record.scheduled_s for record in records) / count
    client_s = sum(record.end_s - record.sent_s for record in records) / count
    rows = [Row(ClientLayer.LATENESS, late_s)]
    counters = Counters(server)
    inner_s = client_s
    hop: Layer = ClientLayer.NETWORK
    if front_door:
        door = Counters(front_door)
        door_s = door.histogram_mean_s("litport_request_duration_seconds")
        inner_s = door.histogram_mean_s("litport_upstream_duration_seconds")
        counters.request_counts |= door.request_counts
        rows += [Row(ClientLayer.NETWORK, client_s - door_s), Row(FrontDoorLayer.FRONT_DOOR, door_s - inner_s)]
        hop = FrontDoorLayer.HOP
    readings = (reader(counters, inner_s, hop) for reader in (*readers, _naive_rows))
    rows += next((inner for inner in readings if inner), [Row(ServerLayer.WHOLE, inner_s)])
    return _close(rows, late_s + client_s, count, counters.request_counts)


def break_down_steps(records: Sequence[RequestRecord], steps: Sequence[tuple[Layer, float]]) -> Breakdown:
    """The rows of a model called without a server; `steps` are seconds of all requests together."""
    count = len(records)
    late_s = sum(record.sent_s - record.scheduled_s for record in records) / count
    e2e_s = sum(record.e2e_s for record in records) / count
    rows = [Row(ClientLayer.WAITING, late_s), *(Row(layer, spent_s / count) for layer, spent_s in steps)]
    rows.append(Row(ClientLayer.LOOP, e2e_s - sum(row.seconds for row in rows)))
    return _close(rows, e2e_s, count, set())


def _naive_rows(counters: Counters, inner_s: float, hop: Layer) -> list[Row] | None:
    if "naive_http_seconds_sum" not in counters:
        return None
    http_s = counters.histogram_mean_s("naive_http_seconds")
    model_s = counters.histogram_mean_s("naive_model_seconds")
    return [Row(hop, inner_s - http_s), Row(ServerLayer.HTTP, http_s - model_s), Row(ServerLayer.MODEL, model_s)]


def _close(rows: Sequence[Row], e2e_s: float, count: int, request_counts: set[float]) -> Breakdown:
    if differing := sorted(request_counts - {float(count)}):
        numbers = ", ".join(f"{number:g}" for number in differing)
        return Breakdown(tuple(rows), e2e_s, None, f"the server counted {numbers} requests, the client {count}")
    total_s = sum(max(row.seconds, 0.0) for row in rows)
    return Breakdown(tuple(rows), e2e_s, (total_s - e2e_s) / e2e_s if e2e_s else None)
