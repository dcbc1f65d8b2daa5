"""The page for Prometheus: series of requests, models and hardware, and those of the models' own processes."""
