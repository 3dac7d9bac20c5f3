"""Raw files, item texts, user histories, and what a user may know at which split."""
