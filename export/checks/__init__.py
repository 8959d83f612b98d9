"""Checks that an exported graph agrees with the trained network and runs where it is deployed.

`checks` defines `Tolerances`, `Agreement` and the errors (`CheckError`, `ParityError`); `verify` runs all checks of one
graph against a `ParityReference`. Of `export` this room may import `graphs` and `inference`.
"""
