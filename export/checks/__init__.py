"""Checks that an exported file agrees with the trained network and runs everywhere."""
