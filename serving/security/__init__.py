"""TLS, and who may call what.

`ClientRegistry` knows the clients and their roles; `tls` reads certificates again when they change. May import `system`
and `context`.
"""
