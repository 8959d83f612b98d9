"""Shadow versions at work: they classify images that other versions have answered, when nothing else is to be done.

`queue.ShadowQueue` chooses the images, keeps them in bounded memory, and gives one at a time to a thread of the lowest
priority (`background`). May import every room above it: `system` to `models`.
"""
