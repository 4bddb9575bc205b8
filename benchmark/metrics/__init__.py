"""The metrics, one family a file: plug-ins of `benchmark.metric.METRICS`."""
