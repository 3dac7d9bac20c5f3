"""Methods without training that every model is compared with."""
