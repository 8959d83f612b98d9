"""Labelled images, from folders and from shards."""
