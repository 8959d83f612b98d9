"""Signed prediction tokens, and the keys that sign them.

`TokenSigner` writes and verifies tokens with the keys of a `Keyring`. May import `system` and `context`.
"""
