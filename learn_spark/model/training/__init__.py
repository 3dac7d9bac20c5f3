"""The train stage: the loop, its batches, checkpoints, processes and logs."""
