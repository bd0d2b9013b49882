"""The audit of containers: which digest each really runs, and whether it is vulnerable.

``registry_queries`` asks the registries; ``image_identity`` joins their answers with what the inventory
says of a container; ``tag_verdict`` and ``assessment`` judge; ``audit`` makes one row of it for each
container, and ``reports`` writes the rows out.
"""
