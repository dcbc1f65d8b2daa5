"""The limits of keys: counted by this gateway alone, or in a store for several of them together."""
