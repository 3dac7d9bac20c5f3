"""Prompt templates, cleaning, and the item_text stage."""
