"""`python -m small_chunks ARGS`: the command `bidaf ARGS`, which answers a few questions per chunk."""

from __future__ import annotations

from bidaf.cli.app import main
from bidaf.inference import stream

FEW_CHARACTERS = 130  # of texts per chunk: two or three questions of `helpers_cli`

if __name__ == "__main__":
    stream.CHUNK_CHARACTERS = FEW_CHARACTERS
    main()
