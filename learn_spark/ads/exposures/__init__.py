"""The table of exposures: what was shown to whom and what came of it, from interactions, own logs or promotions."""
