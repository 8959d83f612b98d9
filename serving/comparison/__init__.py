"""Mathematics of comparing versions: proportions, paired and unpaired differences, a sequential test. No I/O.

`compare_pairs` and `compare_groups` return a `Comparison`. May import nothing of ours.
"""
