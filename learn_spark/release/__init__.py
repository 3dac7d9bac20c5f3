"""Publishing features: staged, gated, released; how consumers read them; the FAISS index."""
