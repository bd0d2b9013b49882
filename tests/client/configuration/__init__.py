"""Tests of what configuration files say of registries."""
