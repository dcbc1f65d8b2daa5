"""The routes by the body's model: none of vLLM's that change the server is among them."""

from servers.gateway.routes import openai


def test_routes_that_change_the_server_are_not_among_those_let_through() -> None:
    administrative = ("lora", "sleep", "wake", "profile", "pause", "resume", "weights", "cache", "invocations", "load")
    assert not [path for path in openai.PATHS for word in administrative if word in path]
