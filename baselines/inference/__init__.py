"""Inference: predictions of splits and of photos, speed."""
