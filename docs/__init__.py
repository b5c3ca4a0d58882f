"""Scripts that make parts of the pages: tables of settings, figures, the tutorial's outputs."""
