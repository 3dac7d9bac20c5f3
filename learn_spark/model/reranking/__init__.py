"""Co-occurrence beside a tower: counts of what followed what, and a small head that learns what they are worth."""
