"""How fast it is, against the plain form of the same thing, on this machine."""
