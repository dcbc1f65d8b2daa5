"""What the records of a run mean: figures, where the time goes, parity, validity, the verdict."""
