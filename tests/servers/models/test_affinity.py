"""Which instance gets a prompt: the same for prompts that begin alike, all alike often, none with too much."""

from collections import Counter
from pathlib import Path

import pytest

from servers.models.affinity import nearest
from servers.models.instance import Instance

PROMPTS = [f"conversation {number}".encode() for number in range(3000)]


def _instances(count: int) -> list[Instance]:
    return [Instance(Path(f"{number}.sock"), Path("log"), f"http://box-{number}:8000") for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_prompts_are_shared_out_evenly_and_each_keeps_its_instance(count: int) -> None:
    instances = _instances(count)
    places = {prompt: nearest(prompt, instances).place for prompt in PROMPTS}
    shares = Counter(places.values())
    assert len(shares) == count
    assert max(shares.values()) < 1.15 * len(PROMPTS) / count
    reordered = _instances(count)[::-1]  # as after a restart of the platform
    assert places == {prompt: nearest(prompt, reordered).place for prompt in PROMPTS}


def test_when_an_instance_leaves_only_its_own_prompts_move() -> None:
    instances = _instances(4)
    places = {prompt: nearest(prompt, instances) for prompt in PROMPTS}
    moved = Counter(nearest(prompt, instances[1:]) for prompt in PROMPTS if places[prompt] is instances[0])
    assert all(nearest(prompt, instances[1:]) is place for prompt, place in places.items() if place is not instances[0])
    assert set(moved) == set(instances[1:]), "and they are shared out too"


def test_an_instance_with_much_more_than_the_mean_is_passed_over_for_always_the_same_one() -> None:
    instances = _instances(4)
    first = nearest(PROMPTS[0], instances)
    first.in_flight = 2  # a mean of 0.5 lets it have 1.6
    second = nearest(PROMPTS[0], instances)
    assert second is nearest(PROMPTS[0], [instance for instance in instances if instance is not first])
    for instance in instances:
        instance.in_flight = 8
    first.in_flight = 11
    assert nearest(PROMPTS[0], instances) is first
    first.in_flight = 13
    assert nearest(PROMPTS[0], instances) is second


def test_one_prompt_alone_loads_no_instance_beyond_the_bound() -> None:
    instances = _instances(4)
    for _ in range(64):
        nearest(PROMPTS[0], instances).in_flight += 1
    loads = sorted(instance.in_flight for instance in instances)
    assert sum(loads) == 64
    assert loads[-1] <= 1.25 * 16 + 2
