"""Data: public sets of rated images, ladders of known damage, split rules."""
