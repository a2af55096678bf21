"""A texture from all pictures of a capture, for files that carry one."""
