"""The user tower as one graph of operations, for services without this package."""
