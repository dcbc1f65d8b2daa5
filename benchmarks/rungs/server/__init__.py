"""The servers that the ladder compares Litport with."""
