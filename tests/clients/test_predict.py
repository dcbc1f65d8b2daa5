"""`litport predict` says in a line what it cannot send. What it does send, the tests of the command line say."""

import pytest

from clients import predict


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a long plain text " * 300, "expected a file that exists or JSON, got 'a long plain text"),
        ("/proc/self/mem", "expected a file that can be read, got /proc/self/mem (Input/output error)"),
    ],
    ids=["a long text", "a file that cannot be read"],
)
def test_what_is_no_file_and_no_json_is_the_users_mistake(
    capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    assert predict.run("http://127.0.0.1:9", None, "m", text) == 2
    error = capsys.readouterr().err
    assert error.startswith(words)
    assert error.count("\n") == 1
