"""Labelled images from folders and shards, and batches of them.

Main types: `LabelledImage`, `Split` (training and validation images), `ShardIndex` and `Source` (batches of tensors).
May import `console`, `hardware` and `recipes`.
"""
