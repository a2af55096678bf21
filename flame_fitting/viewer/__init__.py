"""The viewer of `flame-fitting view`: what is shown (no module but `page`, `panel` and `nodes` knows viser)."""
