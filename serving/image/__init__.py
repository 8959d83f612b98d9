"""Encoded bytes to uint8 RGB images to views: the pixels that networks are trained on and served.

`decode` makes an image of bytes within `Limits`, `preprocess` scales it to a canvas, `views` cuts the views of
test-time augmentation. Training, export and serving all use this code. May import `system`.
"""
