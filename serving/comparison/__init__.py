"""Mathematics of comparing versions: proportions, paired and unpaired differences, a sequential test; drift. No I/O.

`compare_pairs` and `compare_groups` return a `Comparison`, `compare_counts` of `drift` a `Shift`. Imports no other
room.
"""
