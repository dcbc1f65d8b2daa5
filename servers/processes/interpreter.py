"""How to start one of our modules as a process, in the same interpreter and environment.

The working directory belongs to the user. A folder `configs` or `servers` in it must not hide ours, so `-P` keeps the
directory off the import path.
"""

import sys


def module_argv(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module that is installed in this environment."""
    return [sys.executable, "-P", "-m", module, *arguments]
