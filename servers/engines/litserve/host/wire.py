"""The frames between the front door and a worker, on one Unix socket.

A frame is two lengths (head and body, 4 bytes each, little endian), a head in MessagePack, and a body as it came. The
head says which bytes of the body belong to which request, so that several requests or answers share a frame and a
system call, and no body is copied through another encoding.

The worker speaks first: `Hello`, with the version. Then requests go one way and replies the other. A body longer than
`CHUNK_BYTES` follows in `Chunk` frames. A reply may use `WINDOW_BYTES` until the front door grants more (`Grant`), so
that a slow client holds back its own answer only.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum

import msgspec

VERSION = 1
CHUNK_BYTES = 256 * 1024
WINDOW_BYTES = 1024 * 1024
_LENGTHS = struct.Struct("<II")
# A head names at most some hundreds of requests; a longer one is no head.
_LONGEST_HEAD_BYTES = 16 * 1024**2


class WireError(Exception):
    """The peer does not speak this protocol, or not this version of it."""


class Hello(msgspec.Struct, tag=0, array_like=True):
    """From a worker, once it can work: its process, how many requests it takes together, and whether it is async."""

    version: int
    pid: int
    batch_size: int
    is_async: bool


class Request(msgspec.Struct, array_like=True):
    """One request: `size` bytes of its body are in this frame, `total` in all.

    `headers` are the fields that may reach the API, names in lower case. `queued_s` is when it came (CLOCK_MONOTONIC).
    `has_tensors` is whether it is an inference request with tensors, and not one to the API's own route.
    """

    id: int
    size: int
    total: int
    content_type: str
    request_id: str
    query: bytes = b""
    method: str = "POST"
    headers: Sequence[tuple[str, str]] = ()
    queued_s: float = 0.0
    has_tensors: bool = False


class Requests(msgspec.Struct, tag=1, array_like=True):
    """To a worker: requests that it shall work on together, if it makes batches."""

    requests: list[Request]


class Chunk(msgspec.Struct, tag=2, array_like=True):
    """To a worker: more of a request's body."""

    id: int


class Cancel(msgspec.Struct, tag=3, array_like=True):
    """To a worker: these answers are not needed any more."""

    ids: list[int]


class Grant(msgspec.Struct, tag=4, array_like=True):
    """To a worker: so many bytes of this answer have been passed on."""

    id: int
    size: int


class Kind(IntEnum):
    """Which part of an answer a reply is."""

    WHOLE = 0
    BEGIN = 1
    PART = 2
    END = 3


class Reply(msgspec.Struct, array_like=True):
    """An answer or a part of one, with `size` bytes of the body.

    `times` are seconds, of the last reply of an answer: received and begun by CLOCK_MONOTONIC, which all processes
    share, then the lengths of decode, predict and encode. `failure` says why an answer that has begun is not whole,
    `is_retried` that predict failed for its batch and had it alone.
    """

    id: int
    kind: int
    size: int
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    times: tuple[float, float, float, float, float] | None = None
    batch_size: int = 0
    failure: str | None = None
    is_retried: bool = False


class Replies(msgspec.Struct, tag=5, array_like=True):
    """From a worker."""

    replies: list[Reply]


class Leaving(msgspec.Struct, tag=6, array_like=True):
    """From a worker: it answers what it has and then ends; it takes no more requests."""


class Ping(msgspec.Struct, tag=7, array_like=True):
    """To a worker: answer, whatever the API works on."""


class Pong(msgspec.Struct, tag=8, array_like=True):
    """From a worker: what the API's own health() says."""

    is_healthy: bool


Head = Hello | Requests | Chunk | Cancel | Grant | Replies | Leaving | Ping | Pong

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Head)


def frame(head: Head, bodies: Iterable[bytes] = ()) -> bytes:
    """The bytes of one frame."""
    packed = _encoder.encode(head)
    body = b"".join(bodies)
    return b"".join((_LENGTHS.pack(len(packed), len(body)), packed, body))


class Reader:
    """Makes frames of the bytes that come."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._frame_bytes = _LENGTHS.size

    def feed(self, data: bytes) -> Iterator[tuple[Head, bytes]]:
        """The frames that are complete with `data`: head and body. Raises WireError."""
        if self._unread:
            self._unread += data
            if len(self._unread) < self._frame_bytes:
                return
            data = bytes(self._unread)
            self._unread.clear()
        offset, end = 0, len(data)
        while end - offset >= _LENGTHS.size:
            head_size, body_size = _LENGTHS.unpack_from(data, offset)
            if head_size > _LONGEST_HEAD_BYTES:
                raise WireError(f"expected a frame, got a head of {head_size} bytes")
            begin = offset + _LENGTHS.size
            stop = begin + head_size + body_size
            if stop > end:
                self._frame_bytes = stop - offset
                break
            try:
                head = _decoder.decode(memoryview(data)[begin : begin + head_size])
            except msgspec.MsgspecError as problem:
                raise WireError(f"expected a frame's head: {problem}") from None
            yield head, data[begin + head_size : stop]
            offset = stop
        else:
            self._frame_bytes = _LENGTHS.size
        self._unread += data[offset:]
