"""What exists only because of XLA on CPUs: it changes speed, not numbers."""
