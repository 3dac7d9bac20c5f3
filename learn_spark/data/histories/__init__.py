"""Assembling user histories from interactions, and splitting them into training, validation and test."""
