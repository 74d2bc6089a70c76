#!/bin/bash
# What the Quantization Rectifier gains, at small widths: baselines, (a) the rectifier by
# soft-to-predictive training, (b) the control, as many further steps of the baseline's decoder
# without rectifier, and (c) the predictive stage alone, whose files are those of (b) byte for byte.
#
#   PHOTOGRAPHS=~/photographs KODAK=~/kodak bash results/rectifier_two_cores/commands.sh
#
# from the checkout, the environment active. Stopped, it goes on where it was.
set -euo pipefail

train() { python train.py --train_images="$PHOTOGRAPHS" --progress=line "$@"; }

# NAME LMBDA FLAGS...: a baseline, and from it (b) and (c).
compare() {
  local name=$1 lmbda=$2; shift 2
  train --flagfile=configs/qr_baseline.flags --lmbda="$lmbda" --model_dir="runs/qr/$name" "$@"
  from=(--lmbda="$lmbda" --init_from="runs/qr/$name" "$@")
  train --flagfile=configs/qr_predictive.flags --model_dir="runs/qr/${name}_b" \
    --rectifier_width=0 "${from[@]}"
  train --flagfile=configs/qr_predictive.flags --model_dir="runs/qr/${name}_c" "${from[@]}"
}

# NAME LMBDA FLAGS...: (a), from the same baseline.
both_stages() {
  local name=$1 lmbda=$2; shift 2
  train --flagfile=configs/qr_stp.flags --model_dir="runs/qr/${name}_a" --lmbda="$lmbda" \
    --init_from="runs/qr/$name" "$@"
}

# NAME BASELINE FLAGS...: one more run of the predictive stage.
more() {
  local name=$1 baseline=$2; shift 2
  train --flagfile=configs/qr_predictive.flags --model_dir="runs/qr/more/$name" \
    --codec=scale_hyperprior --init_from="runs/qr/$baseline" "$@"
}

for codec in scale_hyperprior factorized; do
  for rate in "0.0067 5e-4" "0.025 1e-4"; do  # lmbda, learning rate
    read -r lmbda learning_rate <<< "$rate"
    flags=(--codec="$codec" --qr_predictive_learning_rate="$learning_rate")
    compare "${codec}_$lmbda" "$lmbda" "${flags[@]}"
    both_stages "${codec}_$lmbda" "$lmbda" "${flags[@]}"
  done
done

# Which learning rate, and a wider and deeper rectifier.
for rate in 1e-4 3e-5; do
  more "b_$rate" scale_hyperprior_0.0067 --lmbda=0.0067 --qr_predictive_learning_rate=$rate \
    --rectifier_width=0
  more "c_$rate" scale_hyperprior_0.0067 --lmbda=0.0067 --qr_predictive_learning_rate=$rate
done
more 0.025_b_5e-4 scale_hyperprior_0.025 --lmbda=0.025 --rectifier_width=0
more 0.025_c_5e-4 scale_hyperprior_0.025 --lmbda=0.025
train --flagfile=configs/qr_stp.flags --model_dir=runs/qr/more/0.025_a_5e-4 --lmbda=0.025 \
  --codec=scale_hyperprior --init_from=runs/qr/scale_hyperprior_0.025
more wide scale_hyperprior_0.0067 --lmbda=0.0067 --rectifier_width=96 --rectifier_depth=3

# Which weight: from the baseline that the rest starts from, on training photographs alone.
train --flagfile=configs/qr_explore.flags --model_dir=runs/qr/scale_hyperprior_0.0067_weights \
  --codec=scale_hyperprior --lmbda=0.0067 --init_from=runs/qr/scale_hyperprior_0.0067

# More complex networks, one rate each; the residual ones are slow: fewer steps.
compare ms_context_0.0067 0.0067 --codec=ms_context
compare cheng_attn_0.0067 0.0067 --codec=cheng_attn --joint_steps=3000 --qr_predictive_steps=1000

# MS-SSIM, on crops that take its five scales, at about a tenth of the weight.
compare scale_hyperprior_ms_ssim 8.73 --codec=scale_hyperprior --distortion=ms_ssim --crop=192 \
  --batch_size=4 --qr_weight=0.1 --joint_steps=3000

# The gain that counts is that over (b) (here: over_control/), and what (b) gains over the baselines
# (here: control_over_baseline/).
cd runs/qr
list() { ls -d "$@" | sed 's|^|runs/qr/|' | paste -sd,; }
baselines=$(list *_0.0067 *_0.025 *_ms_ssim) controls=$(list *_b)
rectified=$(list *_a *_c)
cd ../..
compare_models() { python eval.py --images="$KODAK" --conventional= --noreconstructions "$@"; }
compare_models --model_dir="$rectified" --baseline="$controls" --report_dir=runs/qr_report
compare_models --model_dir="$controls" --baseline="$baselines" --report_dir=runs/qr_control_report
