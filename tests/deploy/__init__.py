"""Tests of what digestry is installed and deployed with."""
