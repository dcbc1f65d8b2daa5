"""The exceptions for mistakes of the user. The command line prints their text in place of a traceback."""


class UserError(Exception):
    """A mistake in settings, arguments or files: what was expected, what came, what to do."""


class SettingsError(UserError):
    """Settings that cannot be used: one line a problem, with key, value, source and what is expected."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
