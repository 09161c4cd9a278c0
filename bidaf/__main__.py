"""`python -m bidaf`: the `bidaf` command, also for launchers that start modules."""

from bidaf.cli.app import main

if __name__ == "__main__":
    main()
