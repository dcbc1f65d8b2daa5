import pytest

from servers.engines.litserve.host import wire


def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut() -> None:
    requests = wire.Requests(
        [
            wire.Request(1, 3, 3, "application/json", "a", headers=[]),
            wire.Request(2, 0, 9, "", "b", b"q=1", headers=[("a", "b")]),
        ]
    )
    sent = wire.frame(requests, (b"abc",)) + wire.frame(wire.Cancel([1])) + wire.frame(wire.Chunk(2), (b"x" * 9,))
    expected = [(requests, b"abc"), (wire.Cancel([1]), b""), (wire.Chunk(2), b"x" * 9)]
    for size in (1, 2, 3, 7, 8, 9, 50, len(sent)):
        reader = wire.Reader()
        pieces = [sent[begin : begin + size] for begin in range(0, len(sent), size)]
        assert [frame for piece in pieces for frame in reader.feed(piece)] == expected, size


def test_replies_keep_their_times_and_headers() -> None:
    replies = wire.Replies(
        [
            wire.Reply(1, wire.Kind.WHOLE, 2, 201, [("x-a", "b")], (1.0, 2.0, 0.1, 0.2, 0.3), 4),
            wire.Reply(2, wire.Kind.END, 0, headers=[], failure="ValueError"),
        ]
    )
    ((head, body),) = wire.Reader().feed(wire.frame(replies, (b"{}",)))
    assert head == replies
    assert body == b"{}"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x03\0\0\0\0\0\0\0abc"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError, match="expected a frame"):
        list(wire.Reader().feed(data))
