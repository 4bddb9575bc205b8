"""People: review, decisions, triage, composites."""
