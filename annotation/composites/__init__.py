"""Real composites (paper section 5.1): proposals, edits and votes."""
