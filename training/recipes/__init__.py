"""Declarations of how a network is fine-tuned.

Main types: `Recipe`, its `Stage`s and `Step`s; `PRESETS` are recipes by name.
May import `console`.
"""
