"""LitServe: the engine of any LitAPI."""
