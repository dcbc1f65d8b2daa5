"""What runs: the front door, the supervisor, the engines, the APIs and the model store. Imports `configs` only."""
