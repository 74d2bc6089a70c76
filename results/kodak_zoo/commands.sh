#!/bin/bash
# The whole zoo at small widths, at one rate, and its files of Kodak.
#
#   PHOTOGRAPHS=~/photographs KODAK=~/kodak bash results/kodak_zoo/commands.sh
#
# from the checkout, the environment active; an hour and a half on one core. Stopped, it goes on.
zoo="factorized scale_hyperprior ms_hyper ms_hyper_zero ms_context charm charm_zero
  elic_sm_zero elic_zero cheng_anchor cheng_attn"
for codec in $zoo; do
  python train.py --flagfile=configs/small_$codec.flags \
    --train_images="$PHOTOGRAPHS" --model_dir=runs/zoo/$codec --progress=line
  runs+=(runs/zoo/$codec)
done
python eval.py --model_dir="$(IFS=,; echo "${runs[*]}")" --images="$KODAK" --conventional= \
  --noreconstructions --report_dir=runs/zoo/report
