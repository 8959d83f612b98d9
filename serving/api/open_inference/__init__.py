"""The Open Inference Protocol of KServe and Triton: its calls and messages, for all transports."""
