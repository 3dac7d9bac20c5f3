"""Exact ranks and top-k lists of a catalogue, and metrics of ranks."""
