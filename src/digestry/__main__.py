"""``python -m digestry``: the command line."""

from digestry.cli.main import start

if __name__ == "__main__":
    start()
