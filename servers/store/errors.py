"""Why one source could not give a model.

It exists so that a catalog name can go on to its next source, which a full disk or a read-only folder must not cause:
those stay plain `UserError`s.
"""

from configs.errors import UserError


class SourceError(UserError):
    """This source cannot give the model, another one may. `cause` says why, `advice` what the user can do."""

    def __init__(self, cause: str, advice: str | None = None) -> None:
        super().__init__(f"{cause}; {advice}" if advice else cause)
        self.cause = cause
