"""FLAME parameters in the words of other programs: one small module per dialect."""
