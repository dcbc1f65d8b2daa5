"""The settings: one typed tree, read once from recipes, secret files, environment and command line.

This package imports no other package of ours.
"""
