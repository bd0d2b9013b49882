"""Admission: whether a cluster may run an image, by what its tag and its digest have been through."""
