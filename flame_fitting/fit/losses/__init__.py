"""One file for each family of losses; a loss is a pure function of tensors."""
