"""Experiments: assignment, checks, lift with intervals, variance reduction, corrections, power, A/A."""
