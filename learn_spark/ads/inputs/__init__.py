"""Exposures as rows of numbers, made by Spark: the split by time, vocabularies, released vectors, cohorts."""
