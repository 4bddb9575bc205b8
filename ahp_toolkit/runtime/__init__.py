"""How a stage runs: shards, engines, progress, logs and signals."""
