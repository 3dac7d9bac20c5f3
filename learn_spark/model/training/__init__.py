"""The training loop, checkpoints, and models on disk."""
