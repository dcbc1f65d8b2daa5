"""What runs in vLLM's processes."""
