"""Hardware-aware neural architecture search under a hard latency limit."""
