"""Stages, what makes them run or rest, and the command line."""
