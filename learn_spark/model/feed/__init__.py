"""From a Delta snapshot to training batches: Petastorm streams, the item matrix is memory-mapped."""
