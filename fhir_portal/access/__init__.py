"""Who may see and do what: one decision, compiled into every query."""
