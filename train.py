"""Trains a learned image codec: `python train.py --flagfile=configs/quickstart.flags`.

The command itself is in `tfquant/commands/train.py`.
"""

from tfquant.commands.program import run_program

if __name__ == "__main__":
    run_program("train")
