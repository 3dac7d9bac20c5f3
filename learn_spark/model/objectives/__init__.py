"""What the towers are trained on: cuts of histories, sampled positions, the dense all-action loss."""
