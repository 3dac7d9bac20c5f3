"""Guesses about raw files for learn-spark init: formats, columns, keys and times, without Spark."""
