"""Values without input or output: digests, references, descriptors, manifests, platforms."""
