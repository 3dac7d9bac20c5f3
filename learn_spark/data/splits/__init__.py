"""Validation and test splits: which events of a user each of them may see."""
