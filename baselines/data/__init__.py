"""Training and validation samples as tensors."""
