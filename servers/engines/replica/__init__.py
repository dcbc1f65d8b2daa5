"""A model whose instances are replicas elsewhere (`litport replica`): what gateway and replica say to each other."""
