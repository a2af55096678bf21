"""Kinds of folders that become a `Capture`, a module each."""
