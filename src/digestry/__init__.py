"""digestry: a content-addressed container image system. See README.md and docs/design.md."""

__version__ = "0.1.0"
