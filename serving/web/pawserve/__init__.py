"""`pawserve.v1` as JSON, below /v1: a thin shell over `ClassifierCalls`."""
