"""vLLM: the engine of language models."""
