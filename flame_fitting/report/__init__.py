"""Metrics, figures and the report page."""
