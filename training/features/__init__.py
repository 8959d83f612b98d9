"""Activations of a frozen backbone: computed once, kept on disk, looked up."""
