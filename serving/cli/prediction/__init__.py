"""What `predict` does: find files, classify them by a server or in this process, write and compare the results."""
