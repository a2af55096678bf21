"""Rasterizers behind one interface, shading, culling."""
