"""The settings of registries from the user's, docker's and containers' files: certificates, mirrors,
blocks.
"""
