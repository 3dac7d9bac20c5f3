"""Raw formats, one file each, behind one interface; and the ingest stage."""
