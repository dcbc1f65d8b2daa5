"""Models that another OpenAI-compatible server serves."""
