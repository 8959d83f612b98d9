"""The service `pawserve.v1.Classifier`."""
