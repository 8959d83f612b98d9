"""Shadow versions at work: they classify images that other versions have answered, when nothing else is to be done.

`queue.ShadowQueue` chooses the images, keeps them in bounded memory, and has one at a time computed in a thread
(`background`), by an engine that it pauses when requests come. May import every room above it: `system` to `models`.
"""
