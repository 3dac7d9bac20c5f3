"""Ads: the table of exposures, rankers trained on it, and the analysis of experiments."""
