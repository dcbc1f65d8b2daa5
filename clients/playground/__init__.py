"""A page in the browser to try the models of a running platform, and to watch them.

It needs Gradio, which only the extra `playground` installs. It is a client like any other: all that it knows of the
platform comes from the platform's port.
"""
