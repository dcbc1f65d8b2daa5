"""Programs that call a platform by clients of the Open Inference Protocol, each with a Python that has its client."""
