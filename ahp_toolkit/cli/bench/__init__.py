"""Benchmark commands that need models and judges."""
