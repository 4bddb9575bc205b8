"""Grading: submissions, the truth, scores and intervals."""
