"""A request that a worker rejects, as a value.

When a request of a batch raises an exception, LitServe answers every request of the batch with it, so one broken
picture would fail its neighbours. Built-in APIs therefore return a Rejection in the place of the broken request and
turn it into a 4xx at the end. Rejections are for the client's mistakes; our own mistakes stay exceptions.
"""

from dataclasses import dataclass

from fastapi.responses import JSONResponse


@dataclass(frozen=True)
class Rejection:
    """Why one request cannot be answered; `detail` names the field, the expected value and the actual one."""

    detail: str
    status: int = 400

    def response(self) -> JSONResponse:
        """The answer in FastAPI's error shape. LitServe sends a response object unchanged."""
        return JSONResponse({"detail": self.detail}, status_code=self.status)
