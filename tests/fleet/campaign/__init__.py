"""Campaigns: what engines did, beside what a registry says that they did, while everything is killed."""
