"""The served models: state, processes, supervision, admission."""
