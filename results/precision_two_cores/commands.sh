#!/bin/bash
# One small codec, 2,000 steps from the same start on the same crops with the same noise, in float32
# and in bfloat16; then both curves in one plot.
#
#   PHOTOGRAPHS=~/photographs bash results/precision_two_cores/commands.sh
#
# from the checkout, the environment active; ten minutes on one core. Stopped, it goes on.
for precision in float32 bfloat16; do
  python train.py --flagfile=configs/small_ms_hyper_zero.flags --precision=$precision \
    --stages=joint --joint_steps=2000 --epoch_steps=100 --train_images="$PHOTOGRAPHS" \
    --crop=128 --batch_size=8 --validation_images=64 \
    --model_dir="runs/precision/$precision" --progress=line
done
python benchmarks/histories.py --runs=runs/precision/float32,runs/precision/bfloat16 \
  --out=results/precision_two_cores
