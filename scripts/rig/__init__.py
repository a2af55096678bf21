"""A talking head of known truth before calibrated cameras, written as the files that people have."""
