"""Encoded bytes to uint8 RGB images to views: the same pixels in training, export and serving.

`decode` turns bytes into an image within `Limits`, `preprocess` resizes it to a canvas, `views` makes the views of
test-time augmentation. May import `system`.
"""
