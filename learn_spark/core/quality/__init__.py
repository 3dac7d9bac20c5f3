"""Row rules, quarantine, gates."""
