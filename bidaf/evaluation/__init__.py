"""Scoring: the official EM and F1, and the evaluation of a model by them."""
