"""Results of shadow versions that wait in memory for the labels of their images: `ShadowLabels`.

May import what `statistics` may, and its modules `labels` and `store`.
"""
