"""The server beside Triton, LitServe and BentoML around the same model."""
