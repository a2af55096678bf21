"""Why options that VHAP has do nothing in the fit of a static capture: what is said of more than one of them."""

ONE_TIMESTEP = "a static capture has one timestep"
KNOWN_CAMERAS = "the cameras of a capture are known and stay as they are"
ONE_CONVENTION = "captures have one camera convention"
CHOSEN_FIGURES = "the pictures of the report are chosen by the program"
NO_TEXTURE_SPACE = "there is no texture space; --model.tex-base chooses the base texture"
