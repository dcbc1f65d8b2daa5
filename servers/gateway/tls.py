"""The certificate of the public port."""

import ssl

from configs.errors import UserError
from configs.settings import Server


def check_tls(settings: Server) -> None:
    """Raises UserError for a certificate or key that cannot be used."""
    cert_file, key_file = settings.tls_cert_file, settings.tls_key_file
    if (cert_file is None) != (key_file is None):
        missing = "server.tls_key_file" if key_file is None else "server.tls_cert_file"
        raise UserError(f"{missing}: a certificate and its key go together, and this one is not set")
    if cert_file is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert_file, key_file, _no_phrase)
    except OSError as problem:  # ssl.SSLError is one
        raise UserError(
            f"server.tls_cert_file, server.tls_key_file: cannot use {cert_file} with {key_file}: "
            f"{problem.strerror or problem}"
        ) from None


def _no_phrase() -> str:
    """Called for a key that is encrypted; OpenSSL would ask the terminal."""
    raise UserError("server.tls_key_file: expected a key without a pass phrase, got one that is encrypted")
