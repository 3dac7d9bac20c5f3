"""Every tower behind one interface: LEARN, LEARN+, SASRec and HSTU."""
