"""Cameras, captures and their files."""
