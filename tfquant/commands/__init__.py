"""The parts of the `tfquant` command."""
