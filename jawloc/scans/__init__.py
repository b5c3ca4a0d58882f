"""Files in, examples out."""
