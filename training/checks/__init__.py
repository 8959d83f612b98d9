"""Checks of a data set: label suspects, near duplicates and what the images are like.

Main types: `DataChecks`, `Suspect` and `DuplicateGroup`. May import `console`, `data` and `features`.
"""
