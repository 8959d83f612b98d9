"""The TLS context of HTTP, which follows the certificate files as that of gRPC does."""

import ssl
from typing import Any

from serving.security.settings import TlsFiles
from serving.security.tls import load
from serving.system.reloading import Reloading


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that gives new connections the certificate that the files hold now.

    Raises:
        ValueError: as `serving.security.tls.load`. When files in use become unusable, that is logged and the earlier
            contents stay in use.
    """
    try:
        reloading = Reloading("certificates of HTTP", files.paths, lambda: _load(files))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
    context = reloading.get()

    def renew(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: Any) -> None:
        if (current := reloading.get()) is not context:
            connection.context = current

    context.sni_callback = renew  # called for every connection, whether it names a server or not
    return context


def _load(files: TlsFiles) -> ssl.SSLContext:
    load(files)  # checks what `ssl` does not, with messages for people
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(files.client_ca)
    except ssl.SSLError as error:
        raise ValueError(f"{files.certificate} and {files.key} cannot be used for HTTP: {error}") from error
    return context
