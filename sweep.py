"""Trains and measures a grid of experiments: `python sweep.py --helpfull`.

The command itself is in `tfquant/commands/sweep.py`.
"""

from tfquant.commands.program import run_program

if __name__ == "__main__":
    run_program("sweep")
