"""The settings layer: one typed tree, read once from recipe, environment and command line.

Imports nothing of ours.
"""
