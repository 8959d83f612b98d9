"""The Open Inference Protocol of KServe and Triton: a thin shell over `ClassificationService` and `ModelWatcher`."""
