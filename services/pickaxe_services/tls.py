"""Server credentials from PEM files, read again when they change; running connections live on."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from pickaxe.errors import Unmet
from pickaxe_services.settings import Settings

log = logging.getLogger("pickaxe.services")


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """The credentials that the settings name; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = _Files(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.fetch(), files.fetch, require_client_authentication=settings.tls_client_ca is not None
    )


class _Files:
    """The certificate configuration of some files; asked for at every handshake."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._configuration = self._read()

    def _read(self) -> grpc.ServerCertificateConfiguration:
        try:
            self._stamp = self._stamps()
            roots = self._client_ca.read_bytes() if self._client_ca else None
            pair = (self._key.read_bytes(), self._cert.read_bytes())
        except OSError as error:
            raise Unmet(f"a TLS file cannot be read: {error}", metadata={"file": error.filename}) from None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def fetch(self) -> grpc.ServerCertificateConfiguration:
        """The configuration of now; the one before while files are half-way through a replacement."""
        try:
            if self._stamps() != self._stamp:
                self._configuration = self._read()
        except (OSError, Unmet) as error:
            log.warning("TLS files could not be read again, the old ones serve on: %s", error)
        return self._configuration

    def _stamps(self) -> tuple[int, ...]:
        files = [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]
        return tuple(file.stat().st_mtime_ns for file in files)
