"""The head model: FLAME-format files in, vertices and landmarks out."""
