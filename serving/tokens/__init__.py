"""Signed prediction tokens, and the keys that sign them.

`TokenSigner` signs and verifies tokens; `Keyring` does so with the keys of a file that may change. May import `system`
and `bundle`.
"""
