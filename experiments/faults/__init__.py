"""What goes wrong on real machines, done on purpose: kills, signals, damaged files."""
