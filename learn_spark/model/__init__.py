"""Towers, their training, and the scoring of a catalogue by their vectors."""
