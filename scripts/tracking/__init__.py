"""Sequences of known truth, tracked and measured: `scripts/bench_track.py`."""
