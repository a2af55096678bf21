"""The version of this package, for its build, its command line and its manifests."""

__version__ = "0.1.0"
