"""From labelled images to a trained classifier.

Rooms, each of which may import only those before it: console, versions, hardware, distributed < recipes, samples <
networks < data < features < evaluation < checks < fitting < runs < reports < tracking < comparison < fit, evaluate,
find_lr, check < command < cli.
"""

import serving  # noqa: F401  (configures ONNX Runtime's logging)
