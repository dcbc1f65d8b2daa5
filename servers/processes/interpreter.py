"""Our own modules as processes of their own: this interpreter, this environment.

The working directory belongs to whoever runs `litport`; a folder `configs` or `servers` in it must not be taken for
ours, so it is kept off the import path (`-P`).
"""

import sys


def module_argv(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module that is installed in this environment."""
    return [sys.executable, "-P", "-m", module, *arguments]
