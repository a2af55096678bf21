"""Parameters, losses, solvers and stages of the fit."""
