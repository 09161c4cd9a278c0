"""Pages to look at: what a run did, and why a model answered what it answered."""
