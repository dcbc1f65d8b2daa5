"""The front door: one port in front of every model's process."""
