"""How a rung of a result stands to the others: the first, the one before, those under the same load.

Tables and charts ask here, so that both compare the same two rungs. Rungs with different numbers of users are not
compared.
"""

from collections.abc import Mapping, Sequence

from benchmarks.analysis.figures import Rate
from benchmarks.analysis.summary import RungSummary
from benchmarks.result import Result


def generates(result: Result) -> bool:
    """Whether throughput means output tokens in this result, as it does where all rungs count them; else requests."""
    rungs = [rung for rung in result.rungs if rung.figures.request_throughput_per_s]
    return bool(rungs) and all(rung.figures.output_throughput_per_s for rung in rungs)


def throughput_unit(result: Result) -> str:
    """The unit of throughput in this result."""
    return "output tokens/s" if generates(result) else "requests/s"


def throughput(result: Result, rung: RungSummary) -> Rate | None:
    """The rung's throughput in the unit of the result."""
    figures = rung.figures
    return figures.output_throughput_per_s if generates(result) else figures.request_throughput_per_s


def ratio(result: Result, rung: RungSummary) -> float | None:
    """Throughput over the first rung's with as many users; None where one of the two was not measured."""
    first = next((peer for peer in same_users(result, rung) if peer.name == result.rungs[0].name), None)
    return over(result, rung, first) if first else None


def over(result: Result, rung: RungSummary, base: RungSummary) -> float | None:
    """The rung's throughput over another's; None where one of the two was not measured."""
    rate, of_base = throughput(result, rung), throughput(result, base)
    return rate.value / of_base.value if rate and of_base and of_base.value else None


def same_users(result: Result, rung: RungSummary) -> list[RungSummary]:
    """The rungs measured with as many users, in the order of the ladder."""
    return [peer for peer in result.rungs if peer.users == rung.users]


def before(result: Result, rung: RungSummary) -> RungSummary | None:
    """The last rung below this one, with as many users, that has a breakdown."""
    level = same_users(result, rung)
    place = next(number for number, peer in enumerate(level) if peer is rung)
    return next((peer for peer in reversed(level[:place]) if peer.time), None)


def changes(earlier: RungSummary, rung: RungSummary) -> dict[str, float]:
    """Seconds that each row gained over the earlier rung, by the key of the row; a row of only one is all change."""
    new, old = ({row.key: row.seconds for row in peer.time.rows} if peer.time else {} for peer in (rung, earlier))
    return {key: new.get(key, 0.0) - old.get(key, 0.0) for key in dict.fromkeys((*new, *old))}


def row_labels(rungs: Sequence[RungSummary]) -> Mapping[str, str]:
    """The label of each row by its key; where two rows have the same label, the owner stands behind it."""
    rows = {row.key: row for rung in rungs if rung.time for row in rung.time.rows}
    labels = [row.name for row in rows.values()]
    return {
        key: f"{row.name} ({row.owner})" if labels.count(row.name) > 1 and row.owner else row.name
        for key, row in rows.items()
    }


def title_of(rung: RungSummary) -> str:
    """The rung's name, with the batch size that it was found to be best at."""
    return rung.name + (f" (batch {rung.batch_size})" if rung.batch_size else "")


def users_of(rung: RungSummary) -> str:
    """The rung's number of users, marked where it is the knee."""
    return "open load" if rung.users is None else f"{rung.users}{' (knee)' if rung.knee else ''}"


def with_users(users: int | None) -> str:
    """A number of users as text."""
    return "open load" if users is None else f"{users} users" if users != 1 else "1 user"


def levels(result: Result) -> list[int | None]:
    """The numbers of users, most telling first: by how many rungs were measured so, then by how many users."""
    users = [rung.users for rung in result.rungs]
    return sorted(set(users), key=lambda level: (-users.count(level), -(level or 0)))
