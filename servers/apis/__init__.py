"""The APIs that a LitServe model process can serve: five built in, and any `litserve.LitAPI` by reference."""
