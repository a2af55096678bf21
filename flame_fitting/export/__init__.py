"""Datasets and meshes that other tools read."""
