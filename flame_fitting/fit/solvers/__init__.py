"""Ways to bring a fit nearer to what was observed, one file each, behind one signature (`interface.Solver`)."""
