"""Assembling user histories from the log, and cutting them into training, validation and test."""
