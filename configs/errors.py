"""The one exception that means the user, not Litport, made the mistake.

It exists so that the command line can print a line instead of a traceback. It carries text only: no codes, no
nesting.
"""


class UserError(Exception):
    """A mistake in settings, arguments or files: what was expected, what came, what to do."""


class SettingsError(UserError):
    """Settings that cannot be used: one line a problem, naming key, value, source and what would be right."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
