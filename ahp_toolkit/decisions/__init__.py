"""What reviewers decided: logs, merging, agreement and rules."""
