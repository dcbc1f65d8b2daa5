"""What the load gives a model without a server, and when."""

import msgspec
import pytest

from benchmarks.load.workload import Item, make
from benchmarks.rungs.bare.feed import Feed
from configs.bench import Workload

CHATS = make(Workload(kind="chat", turns=2), 6, 0)


def indices(feed: Feed, most: int) -> list[int]:
    return [due.item.index for due in feed.wait(most)]


def test_a_turn_that_waits_holds_up_no_other_chat() -> None:
    feed = Feed(CHATS, 60)
    assert indices(feed, 16) == [0, 2, 4]
    feed.finish(CHATS[2])
    assert indices(feed, 16) == [3]
    feed.finish(CHATS[0])
    feed.finish(CHATS[4])
    assert indices(feed, 1) == [1]
    assert indices(feed, 1) == [5]
    assert indices(feed, 1) == []


def test_a_request_is_due_at_its_time_or_when_the_one_before_is_answered() -> None:
    timed = [msgspec.structs.replace(item, at_s=at_s) for item, at_s in zip(CHATS, (0, 0.05, 0.2), strict=False)]
    feed = Feed(timed, 60)
    (first,) = feed.wait(2)
    (other,) = feed.wait(2)
    assert other.item.index == 2
    assert other.scheduled_s - first.scheduled_s == pytest.approx(0.2)
    feed.finish(first.item)
    (turn,) = feed.wait(2)
    assert turn.scheduled_s > other.scheduled_s


def test_nothing_comes_after_the_time_limit() -> None:
    feed = Feed([Item(0, at_s=0.0), Item(1, at_s=0.1), Item(2, at_s=9.0)], 0.15)
    assert [indices(feed, 2) for _ in range(3)] == [[0], [1], []]
