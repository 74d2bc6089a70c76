"""The models that tfquant brings along: a folder for each set, see `tfquant/export/model_set.py`.

`docs/models.md` is their model card. `benchmarks/make_pretrained.py` makes the folders.
"""
