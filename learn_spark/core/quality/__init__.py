"""Row rules, quarantine and quality gates."""
