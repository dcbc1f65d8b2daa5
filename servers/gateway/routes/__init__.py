"""The routes on the public port."""
