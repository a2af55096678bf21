"""Landmark detectors, lifting to 3D, calibration on the head model."""
