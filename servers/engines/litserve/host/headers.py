"""Headers of an API's answers, as far as HTTP has them: one that it has not would end the connection of its client."""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

_log = logging.getLogger("litport.worker")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def valid(headers: Any) -> list[tuple[str, str]]:
    """Names in lower case, and values, numbers as text. What HTTP does not allow is left out, and told in the log."""
    pairs: Iterable[Any] = headers.items() if isinstance(headers, Mapping) else headers or ()
    fields = []
    for name, value in pairs:
        text = str(value)
        if value is not None and _NAME.fullmatch(str(name)) and _VALUE.fullmatch(text):
            fields.append((str(name).lower(), text))
        else:
            _log.warning("a header of an answer is left out, as HTTP does not allow it: %r: %r", name, value)
    return fields
