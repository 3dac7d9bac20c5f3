"""The ads ranker: what released features add to a ranking model."""
