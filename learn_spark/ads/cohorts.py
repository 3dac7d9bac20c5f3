"""The cohorts of items and users by their number of earlier events, as rankers and experiments name them."""

COHORTS = ("cold", "long-tail", "other")
