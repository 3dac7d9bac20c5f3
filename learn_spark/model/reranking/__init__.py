"""Reranking by co-visitation: counted transitions between items, and a head that weighs them beside the tower."""
