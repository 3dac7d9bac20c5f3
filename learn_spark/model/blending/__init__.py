"""Late fusion: a tower's vectors with the items' frozen content and popularity, by how much is known of an item."""
