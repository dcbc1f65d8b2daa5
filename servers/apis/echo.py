"""The smallest plug-in: it returns its input. Copy it for a new API, or use it to try a server without a model."""

from typing import Any

import litserve
from fastapi import HTTPException


class EchoAPI(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    """Gives back its input."""

    input_description = '{"input": any JSON}'
    output_description = '{"output": the same}'
    request_schemas = {  # noqa: RUF012 # a constant
        "application/json": {"type": "object", "required": ["input"], "properties": {"input": {}}}
    }
    example_request = {"input": "canary"}  # noqa: RUF012 # a constant; ClassVar would double a plug-in's imports

    def setup(self, device: str) -> None:
        """Load the model here; the echo has none."""

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Take the input out of the JSON body. Raises HTTPException 400; any other exception would be a 500."""
        if not isinstance(request, dict) or "input" not in request:
            raise HTTPException(400, 'expected {"input": any JSON}')
        return request["input"]

    def predict(self, x: Any) -> Any:
        """Run the model; with max_batch_size above 1, on a list of inputs."""
        return x

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Wrap one output into the JSON answer."""
        return {"output": output}
