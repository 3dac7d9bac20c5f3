"""Searches over settings, and studies: many trainings in one table."""
