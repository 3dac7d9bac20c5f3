"""Released vectors of fewer numbers."""
