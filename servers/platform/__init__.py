"""The running platform: start, signals, reload, shutdown."""
