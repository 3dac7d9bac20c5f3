"""The frozen LLM: loading, token-budget batches, pooling, and the embed_items stage."""
