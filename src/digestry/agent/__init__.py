"""The agent: it reports what starts and stops on a host or in a cluster to a registry."""
