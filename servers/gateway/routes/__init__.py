"""What is on the public port: a list of routes for each protocol."""
