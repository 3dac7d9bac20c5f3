"""Charts of the pages and of studies: Altair builds them, vl-convert renders them to SVG without a network."""
