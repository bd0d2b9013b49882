"""The fleet in the catalog: what agents report runs, who ran what when, and how long that is kept.

:class:`~digestry.catalog.fleet.store.Fleet` is its face.
"""
