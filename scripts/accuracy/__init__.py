"""Cases of known truth and methods for `scripts/bench_accuracy.py --cases`."""
