"""From labelled images to a trained classifier.

Rooms, each of which may import only those before it: console, versions, hardware, distributed < recipes, samples <
networks < data < features < evaluation < fitting < runs < reports < fit, evaluate, find_lr < command < cli.
"""

import serving  # noqa: F401  (configures ONNX Runtime's logging)
