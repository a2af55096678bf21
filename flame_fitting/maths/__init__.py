"""Pure functions of arrays that several parts need: closest points, normals, quantiles."""
