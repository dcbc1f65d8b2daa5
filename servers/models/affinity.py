"""Prefix affinity: prompts that begin alike go to the same instance, whose prefix cache then has their beginning.

Rendezvous hashing (Thaler and Ravishankar, 1998): each instance gets a score from the hash of the prompt's beginning
with its own place, and the highest score comes first. When an instance leaves, only its own prompts move. The load is
bounded as in consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016): an instance with many
more requests than the mean is passed over for the next in the order of scores.
"""

from collections.abc import Sequence
from hashlib import blake2b

from servers.models.instance import Instance

# An instance takes a request while it has at most so many times the mean, and one more.
_LOAD_FACTOR = 1.25


def nearest(beginning: bytes, instances: Sequence[Instance]) -> Instance:
    """The instance, of one or more, that likely has this beginning in its cache, and is not overloaded."""
    mean = sum(instance.in_flight for instance in instances) / len(instances)
    open_instances = [instance for instance in instances if instance.in_flight <= _LOAD_FACTOR * mean + 1]
    key = blake2b(beginning, digest_size=16).digest()
    return max(open_instances, key=lambda instance: blake2b(instance.place, key=key, digest_size=8).digest())
