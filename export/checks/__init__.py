"""Checks that an exported graph agrees with the trained network and runs where it is deployed.

`checks` defines `Tolerances`, `Agreement` and the errors (`CheckError`, `ParityError`); `verify` runs all checks of one
graph against a `ParityReference`. May import `export.inference`, `export.graphs`, `training` and `serving`.
"""
