"""TLS, and the clients that may call.

`ClientRegistry` holds the clients and their roles, `tls` the certificate, and `Security` the settings of both. May
import `system` and `context`.
"""
