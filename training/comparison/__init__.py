"""Finished runs compared: on the validation images that they share, by epoch, by class and by recipe.

Main types: `ComparedRun` and `Pair`, two runs on the same images.
May import `console`, `recipes`, `data`, `evaluation`, `fitting`, `runs`, `reports` and `tracking`.
"""
