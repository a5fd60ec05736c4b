"""The one-command stack: what `./run` provisions, starts, supervises and prints."""
