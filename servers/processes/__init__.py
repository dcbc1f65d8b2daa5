"""Process groups, and how they are ended."""
