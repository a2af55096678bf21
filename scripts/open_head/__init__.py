"""Build-time parts of scripts/build_open_head.py: one module per ingredient of the head file."""
