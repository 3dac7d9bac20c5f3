"""Retrieval over the whole catalogue: exact ranks, metrics and the baselines to beat."""
