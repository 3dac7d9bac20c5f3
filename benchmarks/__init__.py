"""One module a question; ``make bench-<name>`` runs it. Each ends with one line of JSON."""
