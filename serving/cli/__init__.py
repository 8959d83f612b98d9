"""The commands of `python -m serving`.

Only this room and `ray` know argparse. May import every other room.
"""
