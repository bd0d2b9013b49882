"""``python -m digestry``: the command line."""

from digestry.cli.program import start

if __name__ == "__main__":
    start()
