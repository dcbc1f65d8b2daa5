"""Everything that Prometheus is told, on one page: requests, models, hardware, and what the models' processes count."""
