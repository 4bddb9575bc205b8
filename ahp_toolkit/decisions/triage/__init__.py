"""Triage: a model of the decisions so far that orders the queue."""
