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

# NAME LMBDA FLAGS...: a baseline and what follows from it.
compare() {
  local name=$1 lmbda=$2; shift 2
  train --flagfile=configs/qr_baseline.flags --lmbda="$lmbda" --model_dir="runs/qr/$name" "$@"
  from=(--lmbda="$lmbda" --init_from="runs/qr/$name" "$@")
  train --flagfile=configs/qr_predictive.flags --model_dir="runs/qr/${name}_b" \
    --rectifier_width=0 "${from[@]}"
  train --flagfile=configs/qr_predictive.flags --model_dir="runs/qr/${name}_c" "${from[@]}"
}

both_stages() {
  local name=$1 lmbda=$2; shift 2
  train --flagfile=configs/qr_stp.flags --model_dir="runs/qr/${name}_a" --lmbda="$lmbda" \
    --init_from="runs/qr/$name" "$@"
}

# Which weight: on the baseline that the rest starts from, on training photographs alone.
explore() {
  local name=$1 lmbda=$2; shift 2
  train --flagfile=configs/qr_explore.flags --model_dir="runs/qr/${name}_weights" \
    --lmbda="$lmbda" --init_from="runs/qr/$name" "$@"
}

for codec in scale_hyperprior factorized; do
  for lmbda in 0.0067 0.025; do
    compare "${codec}_$lmbda" "$lmbda" --codec="$codec"
    both_stages "${codec}_$lmbda" "$lmbda" --codec="$codec"
  done
done

explore scale_hyperprior_0.0067 0.0067 --codec=scale_hyperprior

# Whether width, depth, length or the learning rate is what is missing: a wider and deeper rectifier;
# decoder and rectifier for three times as many steps, and at three times the rate.
more() {
  local name=$1; shift 1
  train --flagfile=configs/qr_predictive.flags --model_dir="runs/qr/more/$name" --lmbda=0.0067 \
    --codec=scale_hyperprior --init_from=runs/qr/scale_hyperprior_0.0067 "$@"
}
more wide --rectifier_width=96 --rectifier_depth=3
more b_long --rectifier_width=0 --qr_predictive_steps=6000
more c_long --qr_predictive_steps=6000
more b_1.5e-3 --rectifier_width=0 --qr_predictive_learning_rate=1.5e-3
more c_1.5e-3 --qr_predictive_learning_rate=1.5e-3

# Whether the distance of the features may move the encoder in the soft stage.
train --flagfile=configs/qr_stp.flags --model_dir=runs/qr/more/a_stop_gradient --lmbda=0.0067 \
  --codec=scale_hyperprior --init_from=runs/qr/scale_hyperprior_0.0067 --qr_stop_gradient

# More complex networks, one rate each; the residual ones are slow: fewer steps.
compare ms_context_0.0067 0.0067 --codec=ms_context
compare cheng_attn_0.0067 0.0067 --codec=cheng_attn --joint_steps=1500 --qr_predictive_steps=1000

# MS-SSIM, on crops that take its five scales, at about a tenth of the weight.
compare scale_hyperprior_ms_ssim 8.73 --codec=scale_hyperprior --distortion=ms_ssim --crop=192 \
  --batch_size=4 --qr_weight=0.1

# The gain that counts is that over (b): once against the baselines, once against the controls.
cd runs/qr
names=$(ls -d *_0.0067 *_0.025 *_ms_ssim)
list() { for name in $names; do for s in "$@"; do [ ! -d "$name$s" ] || echo "runs/qr/$name$s"; done; done | paste -sd,; }
models_abc=$(list _a _b _c) baselines=$(list "") models_ac=$(list _a _c) controls=$(list _b)
cd ../..
python eval.py --images="$KODAK" --conventional= --noreconstructions \
  --model_dir="$models_abc" --baseline="$baselines" --report_dir=runs/qr/report_baseline
python eval.py --images="$KODAK" --conventional= --noreconstructions \
  --model_dir="$models_ac" --baseline="$controls" --report_dir=runs/qr/report_control
python eval.py --images="$KODAK" --conventional= --noreconstructions \
  --model_dir="$(ls -d runs/qr/more/* | paste -sd,)" \
  --baseline=runs/qr/scale_hyperprior_0.0067_b --report_dir=runs/qr/report_more \
  --explorations=runs/qr/scale_hyperprior_0.0067_weights
