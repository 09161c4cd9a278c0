"""BiDAF on SQuAD with an exponential moving average of all weights."""

__version__ = "0.1.0"
