"""Baselines without training, which every model is compared with."""
