"""LEARN (arXiv 2405.03988) as a Spark feature platform."""

__version__ = "0.1.0"
