"""A route: everything that the front door knows of one path, in one row.

The allow-list, 405s, labels of metrics, the OpenAPI document and its examples are derived from the rows.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from servers.gateway.body.content import BodyKind
from servers.gateway.error_shapes import OPENAI, ErrorShape
from servers.gateway.exchange import Exchange

Handler = Callable[[Exchange], Awaitable[None]]

_PARAMETER = re.compile(r"{(\w+)(:path)?}")


@dataclass(frozen=True)
class Route:
    """One row: a path pattern with its methods, and how requests to it are treated.

    `pattern` is a path; `{name}` in it stands for one segment of letters, digits, `_` and `-`, and `{name:path}` for
    the whole rest. Paths are compared as they are sent, so each has one spelling. `methods` are those that are served;
    a 405 names the first one. `protocol` groups routes in the OpenAPI document. `handler` answers the exchange.

    `errors` is the shape of errors, `label` is the route's name in metrics (default: the template), and
    `is_recorded` says whether its requests are counted, audited and traced.

    The OpenAPI document has a route that names its `operation_id` and its `answer`, the type of its JSON; `outcomes`
    describes each status that comes with the answer. Routes to models are documented from the models' own documents; of
    those, `operation_id` replaces the model's, and `example` is a small request body, without its `model`.
    """

    pattern: str
    methods: tuple[str, ...]
    protocol: str
    handler: Handler
    needs_key: bool = True
    body: BodyKind = BodyKind.UNREAD
    errors: ErrorShape = OPENAI
    label: str | None = None
    is_recorded: bool = True
    operation_id: str | None = None
    summary: str | None = None
    example: Any = None
    answer: type | None = None
    outcomes: Mapping[int, str] = field(default_factory=lambda: {200: "The answer"})

    @cached_property
    def template(self) -> str:
        """The pattern as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.pattern)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the pattern's parameters."""
        return tuple(match[1] for match in _PARAMETER.finditer(self.pattern))

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """What matches the paths of the pattern, with a group for each parameter."""
        expression, end = "", 0
        for match in _PARAMETER.finditer(self.pattern):
            kind = ".*" if match[2] else "[A-Za-z0-9_-]+"
            expression += re.escape(self.pattern[end : match.start()]) + f"(?P<{match[1]}>{kind})"
            end = match.end()
        return re.compile(expression + re.escape(self.pattern[end:]), re.DOTALL)
