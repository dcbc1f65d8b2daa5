"""What a stranger writes to listen to LitServe: callbacks and loggers, which write into the file $NOTES."""

import os
from pathlib import Path
from typing import Any

import litserve as ls


def _note(line: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{line}\n")


class NotingCallback(ls.Callback):
    """It notes each event but those of requests, which come when they please."""

    def on_before_setup(self, *, lit_api: ls.LitAPI) -> None:
        _note("before setup")

    def on_after_setup(self, *, lit_api: ls.LitAPI) -> None:
        _note(f"after setup of {type(lit_api).__name__}")

    def on_before_decode_request(self, *, lit_api: ls.LitAPI) -> None:
        _note("before decode")

    def on_after_decode_request(self, *, lit_api: ls.LitAPI) -> None:
        _note("after decode")

    def on_before_predict(self, *, lit_api: ls.LitAPI) -> None:
        _note("before predict")

    def on_after_predict(self, *, lit_api: ls.LitAPI) -> None:
        _note("after predict")
        raise ValueError("a callback that fails disturbs nobody")

    def on_before_encode_response(self, *, lit_api: ls.LitAPI) -> None:
        _note("before encode")

    def on_after_encode_response(self, *, lit_api: ls.LitAPI) -> None:
        _note("after encode")

    def on_server_start(self, litserver: Any) -> None:
        _note("server starts")


class NotingLogger(ls.Logger):
    def process(self, key: str, value: Any) -> None:
        _note(f"{key} = {value}")
        if value == "bad":
            raise ValueError("a logger that fails loses nothing else")


class CountingLogger(ls.Logger):
    """It cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.total = lambda value: _note(f"total {value}")

    def process(self, key: str, value: Any) -> None:
        self.total(value)


class LoggingAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: dict[str, Any]) -> Any:
        self.log("value", x["value"])
        return x["value"]
