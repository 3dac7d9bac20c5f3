"""Late fusion: frozen content and popularity blended into a tower's vectors, weighted by item frequency."""
