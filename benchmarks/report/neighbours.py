"""How a rung of a result stands to the others: the first, the one before, those under the same load.

Tables and charts ask here, so that both compare the same two rungs. It never compares across numbers of users.
"""

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
Rung = Mapping[str, Any]


def throughput_unit(result: Result) -> tuple[str, str]:
    """The figure that throughput means in this result, and its unit: tokens where any rung generates, else requests."""
    generates = any(rung["figures"]["output_throughput_per_s"] for rung in result["rungs"])
    return ("output_throughput_per_s", "output tokens/s") if generates else ("request_throughput_per_s", "requests/s")


def ratio(result: Result, rung: Rung) -> float | None:
    """Throughput over the first rung's with as many users; None where one of the two was not measured."""
    key, _ = throughput_unit(result)
    first = next((one for one in same_users(result, rung) if one["name"] == result["rungs"][0]["name"]), None)
    own, base = rung["figures"][key], first["figures"][key] if first else None
    return float(own["value"] / base["value"]) if own and base and base["value"] else None


def same_users(result: Result, rung: Rung) -> list[Rung]:
    """The rungs measured with as many users, in the order of the ladder."""
    return [one for one in result["rungs"] if one["users"] == rung["users"]]


def before(result: Result, rung: Rung) -> Rung | None:
    """The last rung below this one, with as many users, of which is known where its time goes."""
    level = same_users(result, rung)
    place = next(number for number, one in enumerate(level) if one is rung)
    return next((one for one in reversed(level[:place]) if one["time"]), None)


def changes(earlier: Rung, rung: Rung) -> dict[str, float]:
    """Seconds that each row of the time gained over the earlier rung; a row of only one of the two is all change."""
    own, other = ({row["name"]: row["seconds"] for row in one["time"]["rows"]} for one in (rung, earlier))
    return {name: own.get(name, 0.0) - other.get(name, 0.0) for name in dict.fromkeys((*own, *other))}


def called(rung: Rung) -> str:
    """The rung's name, with the batch size that it was found to be best at."""
    return str(rung["name"]) + (f" (batch {rung['batch_size']})" if rung["batch_size"] else "")


def with_users(users: int) -> str:
    """A number of users in words."""
    return f"{users} users" if users != 1 else "1 user"


def levels(result: Result) -> list[int]:
    """The numbers of users, most telling first: by how many rungs were measured so, then by how many users."""
    users = [rung["users"] for rung in result["rungs"]]
    return sorted(set(users), key=lambda level: (-users.count(level), -level))
