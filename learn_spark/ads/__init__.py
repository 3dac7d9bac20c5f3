"""The ads side: what was shown, what learns from it, what an experiment says."""
