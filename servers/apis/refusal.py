"""A request refused inside a worker, carried as a value.

LitServe answers every request of a batch with the first exception of any of them, so one broken picture would fail its
neighbours. Built-in APIs therefore return a Refusal in the broken request's place and turn it into its own 4xx at the
end. It is for the client's mistakes only: ours stay exceptions.
"""

from dataclasses import dataclass

from fastapi.responses import JSONResponse


@dataclass(frozen=True)
class Refusal:
    """Why one request cannot be answered; `detail` names the field, what was expected and what came."""

    detail: str
    status: int = 400

    def response(self) -> JSONResponse:
        """The answer in FastAPI's error shape. LitServe passes a response object through as it is."""
        return JSONResponse({"detail": self.detail}, status_code=self.status)
