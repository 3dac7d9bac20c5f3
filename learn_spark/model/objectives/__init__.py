"""Losses, negatives, and the sampling of training positions from histories."""
