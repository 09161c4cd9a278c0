"""The network, from rows and characters to span scores; knows neither files nor text."""
