"""Towers, how they are trained, and how their scores are computed."""
