"""The table of exposures: who was shown what with which outcome, from interactions, logs or promotions."""
