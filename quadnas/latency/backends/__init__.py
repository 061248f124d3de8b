"""One file per latency back-end; each registers itself by name."""
