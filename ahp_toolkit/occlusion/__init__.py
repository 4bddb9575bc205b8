"""Occlusion synthesis: pure functions, a seed in, the same bytes out (paper §4.1, §5.1; spec §2)."""
