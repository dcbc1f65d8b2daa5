"""Models called without a server, each in a process of its own: the lowest rungs of the ladder."""
