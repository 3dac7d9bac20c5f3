"""The user tower in a folder for services: the graph, its items, a model card, test vectors and hashes."""
