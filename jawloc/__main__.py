"""`python -m jawloc` is `jawloc`."""

from jawloc.cli import jawloc

if __name__ == "__main__":
    jawloc(prog_name="python -m jawloc")
