"""Replicas of the server on a Ray cluster.

May import every other room.
"""
