"""The LEARN preference tower: content adaptor, causal transformer, user and item side."""
