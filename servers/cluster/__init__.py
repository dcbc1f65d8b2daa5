"""The Ray cluster: models run as replicas of Ray Serve, and a gateway finds them there."""
