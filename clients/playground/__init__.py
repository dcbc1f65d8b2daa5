"""A page in the browser to try a running platform's models on, and to watch them.

Needs Gradio, which only the extra `playground` brings. It is a client like any other: it knows nothing but what the
platform's port says.
"""
