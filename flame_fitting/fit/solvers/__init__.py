"""Solvers: each moves some of a fit's parameters toward its targets."""
