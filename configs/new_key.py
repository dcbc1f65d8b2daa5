"""`litport keys new NAME`: a new key for a caller. The keys file gets its hash, and the key itself is shown once."""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from configs.auth import KeysFile, digest_of
from configs.errors import SettingsError, UserError

_KEY_BYTES = 32


def make_key(file: Path, name: str) -> str:
    """Add the name with the hash of a new key to the file, which is made if need be, mode 0600; returns the key.

    What is in the file stays as it is, and so do its owner and who may read it. Raises SettingsError for a file or a
    name that cannot be used, UserError for a file that cannot be written or is not laid out in lines.
    """
    text, file = "", Path(os.path.realpath(file))
    if file.exists():
        present = KeysFile(file)
        if present.problems:
            raise SettingsError(tuple(present.problems))
        if name in {entry.name for entry in present.entries}:
            raise UserError(f"{name}: expected a name that is not in {file} yet; remove the old entry first")
        text = file.read_text(encoding="utf-8")
        text += "" if text.endswith("\n") else "\n"
    key = secrets.token_urlsafe(_KEY_BYTES)
    try:
        _write(file, f"{text}{name}:\n  key_sha256: {digest_of(key).hex()}\n", name)
    except OSError as problem:
        raise UserError(f"{file}: expected a keys file that can be written, got {problem.strerror}") from None
    return key


def _write(file: Path, text: str, name: str) -> None:
    """Replace the file in one step, once the new text has been read back without a problem."""
    descriptor, draft_name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    draft = Path(draft_name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            output.write(text)
        written = KeysFile(draft)
        if written.problems or name not in {entry.name for entry in written.entries}:
            problem = (written.problems or ["the entry cannot be read back"])[0].partition(": ")[2]
            raise UserError(f"{file}: cannot add {name!r}: {problem}")
        if file.exists():
            before = file.stat()
            os.chown(draft, before.st_uid, before.st_gid)
            draft.chmod(stat.S_IMODE(before.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
