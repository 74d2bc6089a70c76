"""Identity and short name of the curve to which a model belongs.

A curve is one experiment at several `lmbda`. All fields of an experiment identify it, including
codec options and fields of later versions, except:

    lmbda              varies along the curve
    N, M               widths, which follow lmbda: the papers widen their codecs at high rates
    *_steps            lengths of the stages; only whether a stage was executed identifies
    seed               a repetition of the same experiment
    validation_images  training does not use them
    init_from          the folder; only whether a run started from another one identifies

A curve has one model at each lmbda. If two models had the same lmbda, the exceptions in which the
two differ also identify the curve. Two seeds at the same lmbda are therefore two curves, `seed=1`
and `seed=2`. Models without any recorded difference are `repeat=1` and `repeat=2`, in the given
order.

A setting without effect on a run is ignored. Such settings belong to a stage that neither the run
nor a preceding run executed, or to a rectifier that does not exist.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tfquant.training.experiment import STAGES, Experiment, current_values

WIDTHS = ("N", "M")
_AT_ONE_LMBDA = ("seed", *WIDTHS, *(f"{stage}_steps" for stage in STAGES), "validation_images")
NOT_IDENTIFYING = ("lmbda", *_AT_ONE_LMBDA)

_RECTIFYING = ("qr_soft", "qr_predictive")
# Stages that keep the encoder. A run that begins with one of them started from another run.
_NEED_A_START = ("post", "qr_predictive")
# Settings of the rectifier itself. The width is 0 if there is no rectifier.
_OF_RECTIFIER = ("rectifier_depth", "qr_distance", "qr_weight", "qr_stop_gradient")
# Precision of the transforms in the exported model, which `tfquant export` may change.
EXPORT_PRECISION = "export_precision"
_REPEAT = "repeat"
_IN_EVERY_NAME = ("codec", "plan")
# These settings differ whenever the rectifier's stages do, which the codec's suffix shows. They are
# compared only among curves with the same suffix.
_FOLLOWING = ("stages", "init_from", "rectifier_width")

_DEFAULTS = json.loads(json.dumps(dataclasses.asdict(Experiment())))


class Trained(NamedTuple):
    """Known facts about a model.

    Attributes:
      codec: name of the codec.
      experiment: the experiment from the manifest. Missing fields have their defaults.
      precision: precision of the exported transforms, or None for a model that is not exported.
    """

    codec: str
    experiment: dict[str, Any]
    precision: str | None = None


class Identified(NamedTuple):
    """Curve of a model.

    Attributes:
      name: legend, unique for each identity among the models of a report.
      identity: map from setting to value with all identifying settings.
    """

    name: str
    identity: dict[str, Any]


def name_curves(models: Sequence[Trained]) -> list[Identified]:
    """Returns the curve of each model of a report.

    Args:
      models: the `Trained` models.

    Returns:
      An `Identified` for each. A name has the codec, a suffix for the rectifier stages, the plan,
      and all other settings that differ among the models.
    """
    settings = [_settings(model) for model in models]
    identities = [
        {key: value for key, value in each.items() if key not in NOT_IDENTIFYING}
        for each in settings
    ]
    lmbdas = [_plain(model.experiment.get("lmbda", _DEFAULTS["lmbda"])) for model in models]
    for members in _groups(identities):
        rivals = [(a, b) for a, b in itertools.combinations(members, 2) if lmbdas[a] == lmbdas[b]]
        for key in _AT_ONE_LMBDA:
            if any(settings[a].get(key) != settings[b].get(key) for a, b in rivals):
                for i in members:
                    identities[i][key] = settings[i].get(key)
    for members in _groups(identities):
        places = []
        found: collections.Counter[Any] = collections.Counter()
        for i in members:
            found[lmbdas[i]] += 1
            places.append(found[lmbdas[i]])
        if max(places) > 1:
            for i, place in zip(members, places):
                identities[i][_REPEAT] = place
    return [Identified(*pair) for pair in zip(_names(identities), identities)]


def shared(identities: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the settings that all identities have in common and that are not the defaults."""
    first, *others = identities
    default = {**_DEFAULTS, "init_from": False, EXPORT_PRECISION: _DEFAULTS["precision"]}
    return {
        key: value
        for key, value in first.items()
        if key not in (*_IN_EVERY_NAME, "stages") and value != default.get(key)
        and all(each.get(key) == value for each in others)
    }  # fmt: skip


def differing(one: Trained, other: Trained) -> list[str]:
    """Returns the settings that differ and have an effect on both models.

    The settings of a rectifier, the stages and their lengths are left out, because a rectified
    model and its baseline always differ in them. So is `validation_images`, which training does not
    use.
    """
    first, second = _settings(one), _settings(other)
    left_out = {"stages", "init_from", "validation_images", *(f"{s}_steps" for s in STAGES)}
    return [
        key for key in first
        if key in second and key not in left_out and first[key] != second[key]
        and not key.startswith(("qr_", "rectifier_"))
    ]  # fmt: skip


def describe(settings: dict[str, Any]) -> str:
    """Returns `key=value` for each setting that has a value, named as the flags of train.py."""
    return " ".join(f"{key}={_text(value)}" for key, value in settings.items() if _text(value))


def _settings(model: Trained) -> dict[str, Any]:
    """Returns all settings with an effect on a model, codec options included, in a fixed order."""
    experiment = {**_DEFAULTS, **current_values(model.experiment), "codec": model.codec}
    options = experiment.pop("codec_options") or {}
    passed = [s for s in experiment["stages"] if experiment.get(f"{s}_steps", 1) > 0]
    experiment.update(stages=passed, init_from=bool(experiment["init_from"]))
    known = [key for key in _DEFAULTS if key in experiment]
    later = sorted(experiment.keys() - _DEFAULTS.keys())
    found = {k: experiment[k] for k in [*known, *later] if _takes_part(k, experiment)}
    found.update(sorted(options.items()))
    if model.precision is not None:
        found[EXPORT_PRECISION] = model.precision
    return {key: _plain(value) for key, value in found.items()}


def _takes_part(key: str, experiment: dict[str, Any]) -> bool:
    """Returns true if a setting had an effect on the run or on the run that it started from."""
    stages = experiment["stages"]
    if key == "init_from":
        return not stages or stages[0] not in _NEED_A_START
    if key.startswith(("qr_", "rectifier_")) and not set(stages) & set(_RECTIFYING):
        return False
    if key in _OF_RECTIFIER and not experiment["rectifier_width"]:
        return False
    # Other stages also use the settings of joint training.
    own = next((s for s in STAGES if s != "joint" and key.startswith(f"{s}_")), None)
    return own is None or own in stages or experiment["init_from"]


def _plain(value: Any) -> Any:
    """Returns a value as JSON would give it back, regardless of its number type."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _groups(identities: Iterable[dict[str, Any]]) -> list[list[int]]:
    """Returns lists of indices with the same identity."""
    found = collections.defaultdict(list)
    for i, each in enumerate(identities):
        found[json.dumps(each, sort_keys=True)].append(i)
    return list(found.values())


def _names(identities: Sequence[dict[str, Any]]) -> list[str]:
    rectified = [_rectified(each) for each in identities]
    every = dict.fromkeys(key for each in identities for key in each)
    keys = [key for key in every if key not in _IN_EVERY_NAME]
    names = []
    for each, suffix in zip(identities, rectified):
        alike = [other for other, theirs in zip(identities, rectified) if theirs == suffix]
        words = {
            key: each[key]
            for key in keys
            if key in each and _differs(key, alike if key in _FOLLOWING else identities)
        }
        head = f"{each['codec']}{suffix} {each['plan']}"
        names.append(" ".join(filter(None, (head, describe(words)))))
    return names


def _differs(key: str, identities: Sequence[dict[str, Any]]) -> bool:
    """Returns true if a setting has several values among the identities that have it.

    A missing codec option counts as a value, the codec's default.
    """
    found = identities
    if key in _DEFAULTS:
        found = [each for each in identities if key in each]
    return len({json.dumps(each.get(key)) for each in found}) > 1


def _rectified(identity: dict[str, Any]) -> str:
    """Returns a suffix for the rectifier stages of a codec; empty if there were none.

    `+STP` is a codec with a rectifier from soft-to-predictive training, `+QR` one with a rectifier
    from the predictive stage alone. `+decoder` is a codec without rectifier whose decoder alone was
    trained further, for comparison. `+soft` is a codec whose soft stage changed all weights. Alone,
    it decodes without rectifier.
    """
    soft, predictive = (stage in identity["stages"] for stage in _RECTIFYING)
    if not predictive:
        return "+soft" if soft else ""
    if not identity["rectifier_width"]:
        return "+soft+decoder" if soft else "+decoder"
    return "+STP" if soft else "+QR"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)
