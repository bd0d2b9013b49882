"""``python -m digestry``: the command line."""

from digestry.cli.main import main

if __name__ == "__main__":
    main()
