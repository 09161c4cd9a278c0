"""How fast it is on this machine, compared with the baseline on the same input. Run it: `python scripts/bench`."""
