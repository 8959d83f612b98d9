"""The Open Inference Protocol over REST, with Triton's extensions: a thin shell over `InferenceCalls`."""
