"""Load with Locust's own command line and page: `locust -f clients/locustfile.py --host http://127.0.0.1:8000`.

Endless requests of random tokens to one model, by as many users as the page asks for. `--route` chooses the requests:
completions (streamed), embeddings, or the path of a `causal_lm` such as /predict/NAME.
"""

import itertools
import json
import random
import time
from typing import Any

from locust import events

from clients.record import Call, RequestRecord
from clients.users import CompletionUser, LineUser, WholeUser

# Ids below are often special tokens; the most ids that a vocabulary of some size has.
_TOKEN_IDS = range(1000, 20_000)


class EndlessCalls:
    """Calls of one kind, each with tokens of its own."""

    def __init__(self, options: Any) -> None:
        self._options = options
        self._numbers = itertools.count()
        self._random = random.Random(options.seed)  # noqa: S311 # a workload must be repeatable

    def take(self) -> Call:
        """The next call."""
        options = self._options
        ids = self._random.choices(_TOKEN_IDS, k=options.input_tokens)
        path, body = f"/v1/{options.route}", {"model": options.model}
        if options.route == "completions":
            body |= {"prompt": ids, "max_tokens": options.output_tokens, "ignore_eos": True, "temperature": 0}
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        elif options.route == "embeddings":
            body |= {"input": ids}
        else:
            path, body = options.route, {"prompt_token_ids": ids, "max_tokens": options.output_tokens}
        return Call(next(self._numbers), path, json.dumps(body).encode(), asked_tokens=options.output_tokens)

    def due_s(self, call: Call) -> float:
        """At once."""
        del call
        return time.monotonic()

    def finish(self, call: Call, record: RequestRecord) -> None:
        """Nothing: Locust's own statistics count the requests."""


def _add_options(parser: Any) -> None:
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the model to ask")
    parser.add_argument("--route", default="completions", help="completions, embeddings, or a path such as /predict/m")
    parser.add_argument("--input-tokens", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--output-tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts")
    parser.add_argument("--key", env_var="OPENAI_API_KEY", default="", is_secret=True, help="the API key")


def _prepare(environment: Any, **_: Any) -> None:
    options = environment.parsed_options
    user_class = {"completions": CompletionUser, "embeddings": WholeUser}.get(options.route, LineUser)
    # Locust finds all three here; those of weight 0 it leaves alone.
    for user in (CompletionUser, LineUser, WholeUser):
        user.weight = int(user is user_class)
    environment.calls = EndlessCalls(options)
    environment.headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call] # locust's has no types
events.init.add_listener(_prepare)  # type: ignore[no-untyped-call] # as above
