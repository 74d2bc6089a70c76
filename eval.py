"""Measures codecs: `python eval.py --model_dir=runs/mine --images=kodak/ --report_dir=report`.

The command itself is in `tfquant/commands/evaluate.py`.
"""

from tfquant.commands.program import run_program

if __name__ == "__main__":
    run_program("eval")
