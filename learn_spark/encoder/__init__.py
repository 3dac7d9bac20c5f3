"""The frozen LLM: loading, token-budget batches, pooling, and the Spark stage."""
