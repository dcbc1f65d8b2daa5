"""The limits of a key: they hold, and the time to wait that an error names is true."""

import copy
import random
from dataclasses import replace

import pytest

from servers.errors import ApiError
from servers.gateway.keys import Key, anonymous
from tests.servers.gateway.keyrings import StandInForTime, refusal


@pytest.fixture
def time() -> StandInForTime:
    return StandInForTime()


def test_requests_at_a_time_are_counted_until_they_leave(time: StandInForTime) -> None:
    key = Key("alice", max_in_flight=2, clock=time)
    key.enter(0)
    key.enter(0)
    error = refusal(key)
    assert (error.code, error.headers) == ("rate_limit_exceeded", {"retry-after": "1"})
    assert error.message == "key 'alice' may have 2 requests at a time (max_in_flight); try again in 1 s"
    assert key.in_flight == 2
    key.leave(0, None)
    key.enter(0)


def test_a_minute_of_requests_may_come_at_once_and_then_one_at_a_time(time: StandInForTime) -> None:
    key = Key("alice", requests_per_minute=20, clock=time)
    for _ in range(20):
        key.enter(0)
    error = refusal(key)
    assert error.headers == {"retry-after": "3"}
    assert error.message == "key 'alice' may have 20 requests a minute (requests_per_minute); try again in 3 s"
    time.now_s += 2
    assert refusal(key).headers == {"retry-after": "1"}
    time.now_s += 1
    key.enter(0)
    refusal(key)
    time.now_s += 3600
    for _ in range(20):
        key.enter(0)
    assert refusal(key).headers == {"retry-after": "3"}, "a rest saves up no more than a minute"


def test_tokens_are_taken_by_their_estimate_and_corrected_by_what_was_used(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    key.enter(500)
    error = refusal(key, 200)
    assert error.headers == {"retry-after": "10"}
    assert "key 'alice' may have 600 tokens a minute (tokens_per_minute)" in error.message
    key.leave(500, 100)
    key.enter(500)
    assert refusal(key, 1).headers == {"retry-after": "1"}
    key.leave(500, 1100)
    assert refusal(key, 1).headers == {"retry-after": "61"}, "more than was there is owed"
    assert refusal(key, 0).headers == {"retry-after": "60"}
    time.now_s += 60
    key.enter(0)
    key.leave(0, None)


def test_a_correction_gives_back_no_more_than_a_full_bucket(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    key.enter(600)
    time.now_s += 50
    key.leave(600, 0)
    key.enter(600)
    assert refusal(key, 600).headers == {"retry-after": "60"}


def test_where_use_is_not_known_the_estimate_stands(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    key.enter(600)
    key.leave(600, None)
    assert refusal(key, 60).headers == {"retry-after": "6"}


def test_more_tokens_than_a_whole_minute_has_are_refused_without_a_time_to_retry(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    error = refusal(key, 601)
    assert (error.code, error.headers) == ("request_too_large_for_rate", {})
    assert "key 'alice' may have 600 tokens a minute (tokens_per_minute), and this request alone" in error.message
    key.enter(600)


def test_of_several_limits_the_one_that_takes_longest_is_named(time: StandInForTime) -> None:
    key = Key("alice", max_in_flight=1, requests_per_minute=1, tokens_per_minute=100, clock=time)
    key.enter(50)
    error = refusal(key, 100)
    assert error.headers == {"retry-after": "60"}
    assert "1 requests a minute" in error.message
    time.now_s += 60
    assert "max_in_flight" in refusal(key, 100).message


def test_a_refused_request_takes_nothing(time: StandInForTime) -> None:
    key = Key("alice", max_in_flight=1, requests_per_minute=2, tokens_per_minute=600, clock=time)
    key.enter(300)
    for _ in range(100):
        refusal(key, 300)
    key.leave(300, None)
    key.enter(300)


def test_no_more_may_leave_than_entered() -> None:
    with pytest.raises(AssertionError, match="anonymous"):
        anonymous().leave(0, None)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_the_rate_holds_and_who_waits_as_told_is_let_in_and_no_sooner(
    time: StandInForTime, seed: int
) -> None:
    chance = random.Random(seed)
    per_minute = chance.choice([1, 7, 60, 999, 10_000, 12_345_678])
    key = Key("alice", tokens_per_minute=per_minute, clock=time)
    let_in: list[tuple[float, int]] = []
    inside: list[int] = []
    for _ in range(300):
        time.now_s += chance.choice([0, 0, 0.01, 1, chance.uniform(0, 90)])
        if inside and chance.random() < 0.3:
            key.leave(inside.pop(), None)
        tokens = chance.randint(1, per_minute)
        try:
            key.enter(tokens)
        except ApiError as error:
            retry_s = int(error.headers["retry-after"])
            assert 1 <= retry_s <= 60
            for wait_s, fits in ((retry_s, True), (retry_s - 1, False)):
                later = replace(key, account=copy.deepcopy(key.account), clock=StandInForTime(time.now_s + wait_s))
                if fits:
                    later.enter(tokens)
                else:
                    refusal(later, tokens)
        else:
            let_in.append((time.now_s, tokens))
            inside.append(tokens)
        assert key.in_flight == len(inside)
    assert let_in
    for first, (begin_s, _) in enumerate(let_in):
        total = 0
        for end_s, tokens in let_in[first:]:
            total += tokens
            assert total <= per_minute * (1 + (end_s - begin_s) / 60 + 1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_estimates_were_what_is_used_keeps_to_the_rate_and_a_request_beyond_it(
    time: StandInForTime, seed: int
) -> None:
    chance = random.Random(seed)
    key = Key("alice", tokens_per_minute=1000, clock=time)
    begin_s, used_total = time.now_s, 0
    for _ in range(1000):
        estimate, used = chance.randint(0, 1000), chance.randint(0, 1000)
        try:
            key.enter(estimate)
        except ApiError as error:
            time.now_s += int(error.headers["retry-after"])
            key.enter(estimate)
        time.now_s += chance.uniform(0, 2)
        key.leave(estimate, used)
        used_total += used
        # At most one request at a time overdraws, by at most the 1000 that it may use.
        assert used_total <= 1000 * (1 + (time.now_s - begin_s) / 60) + 1000
    assert used_total > 1000 * (time.now_s - begin_s) / 60 / 2, "and is not far below it"
