"""`python -m flame_fitting <stage>`: the same as the command `flame-fitting`."""

from flame_fitting.cli import script

if __name__ == "__main__":
    script()
