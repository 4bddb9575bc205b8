"""Models: the paper's two networks with every ablation, and the baselines."""
