"""A data set that is drawn: cats and dogs for trying everything without a download."""
