"""The error of one source.

After it, a catalog name goes on to its next source. A full disk or a read-only folder is a plain `UserError`: another
source would not help.
"""

from configs.errors import UserError


class SourceError(UserError):
    """This source cannot give the model, another one may. `cause` is the reason, `advice` what the user can do."""

    def __init__(self, cause: str, advice: str | None = None) -> None:
        super().__init__(f"{cause}; {advice}" if advice else cause)
        self.cause = cause
