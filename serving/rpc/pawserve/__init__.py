"""The service `pawserve.v1.Classifier`: a thin shell over `ClassificationService`, `Feedback` and the statistics."""
