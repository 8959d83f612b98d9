"""Backbones, heads, weights and layer groups."""
