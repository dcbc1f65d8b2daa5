"""The rungs of the ladder: the bare model, naive servers, the engines, Litport."""
