"""Networks: checkpoints, devices and the training loop."""
