"""An online store of released vectors: pushed by changes, switched as a whole, read in one round trip (docs/online.md).

``store.py`` has the interface of four methods and the record of what a store serves; ``redis_store.py`` and
``sqlite_store.py`` implement it, ``push.py`` writes, ``reader.py`` reads, ``check.py`` compares with the tables.
"""
