"""The contract of a stage: what it reads, writes and returns."""
