"""Values only, no input or output: digests, references, descriptors, manifests, platforms."""
