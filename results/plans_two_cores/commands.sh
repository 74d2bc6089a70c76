#!/bin/bash
# Three plans at two joint lower bounds of sigma and two rates, jointly and post-trained.
#
#   PHOTOGRAPHS=~/photographs KODAK=~/kodak bash results/plans_two_cores/commands.sh
#
# from the checkout, the environment active; an hour on one core. Stopped, it goes on where it was.
python sweep.py --base=results/plans_two_cores/base.flags \
  --grid='plan=aun,mix,sua_ste;joint_sigma_bound=0.11,1e-6' --lmbda=0.0067,0.025 \
  --train_images="$PHOTOGRAPHS" --images="$KODAK" --out=runs/plans
