"""The commands: one module for each, with `add_options` and `run`. A module is imported when its command is chosen.

May import `cli`, and every other room but `ray`.
"""
