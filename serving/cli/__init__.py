"""The command line of `python -m serving`.

`parser` has the table of commands and `commands` one module for each; the other modules are what they share. Only this
room and `ray` use argparse. May import every other room but `ray`.
"""
