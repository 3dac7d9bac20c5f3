"""The front page served on this machine, with what works now."""
