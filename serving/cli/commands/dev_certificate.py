"""`dev-certificate`: make certificates for trying TLS."""

import argparse

from serving.cli.errors import DONE, CommandError
from serving.cli.options import path


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `dev-certificate`."""
    parser.description = (
        "Make a certificate authority and a server certificate that it issued, for trying TLS: ca.pem, server.pem and "
        "server.key. The certificate is for localhost, 127.0.0.1 and ::1 and for the names given, for 90 days. For "
        "production, get a certificate from your own authority."
    )
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="a new or an empty folder")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name or IP address that clients connect to; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and print how to use them."""
    from serving.security.dev_certificate import write_dev_certificate  # loads `cryptography`

    out = arguments.out
    try:
        expires = write_dev_certificate(out, arguments.name)
    except ValueError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or out} cannot be written: {error.strerror}") from error
    print(f"written to {out}, valid until {expires:%Y-%m-%d}; for trying only. Use them so:")
    print(f"  python -m serving serve --tls-cert {out / 'server.pem'} --tls-key {out / 'server.key'}")
    print(f"  python -m serving health --tls-ca {out / 'ca.pem'}")
    return DONE
