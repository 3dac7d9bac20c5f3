"""What raw files and their names say, for init and for ingest: packing, folders as columns, notes above a header."""
