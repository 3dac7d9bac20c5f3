"""Every tower behind one interface: LEARN, LEARN+, SASRec, HSTU and BSARec."""
