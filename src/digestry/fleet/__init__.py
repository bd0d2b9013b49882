"""The audit: which digest every container really runs, and whether it is a bad one.

``sources`` ask the places where containers run, ``lookup`` the registries; ``identity`` joins the
two, ``tags`` and ``advisories`` judge, ``audit`` makes one row of it a container, and ``reports``
writes the rows out.
"""
