"""Raw files, item texts, user histories, and the events of a user that may be used at each split."""
