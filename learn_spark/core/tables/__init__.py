"""Contracts, Delta reads and writes, snapshots, lineage."""
