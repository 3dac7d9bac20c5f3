"""What every other part uses: settings, tables, quality gates, the stage contract, the console, errors."""
