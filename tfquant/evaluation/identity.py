"""Identity and short name of the curve to which a model belongs.

A curve is one experiment at several `lmbda`. `tfquant/training/roles.py` classifies the fields of
an experiment. All fields identify the curve, including codec options and fields of later versions,
except:

    lmbda                    varies along the curve
    N, M                     widths, which follow lmbda: the papers widen their codecs at high rates
    *_steps                  lengths of the stages; only whether a stage was executed identifies
    seed, validation_images  a repetition of the same experiment

A setting without effect on a run is ignored. Different spellings of a setting are the same, such as
a default that was written out.

If a run started from another one, the settings of the stages that only the other run executed are
settings of the curve. Where both runs have a setting, the other run's value has the name
`init_from.SETTING`; it is left out if it is the run's own. A manifest of an earlier version does
not record the other run. All of its settings are then unknown, `init_from.stages=unknown`.

A curve has one model at each lmbda. If two models had the same lmbda, the exceptions in which the
two differ also identify the curve. Two seeds at the same lmbda are therefore two curves, `seed=1`
and `seed=2`. If widths and lengths differ, and there are equally many at each lmbda, the smallest
ones of each lmbda are one curve, such as `N=64,96`, and the largest ones another. Models without
any recorded difference are `repeat=1` and `repeat=2`, in the given order. A model for a range of
rates is measured at several lmbda; the `lmbda` of its experiment is an exception like the others.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tfquant.data import sources
from tfquant.training import roles
from tfquant.training.experiment import STAGES, Experiment, current_values

# Stages that keep the encoder. A run that begins with one of them started from another run.
_NEED_A_START = ("post", "qr_predictive")
# Precision of the transforms in the exported model, which `tfquant export` may change.
EXPORT_PRECISION = "export_precision"
_REPEAT = "repeat"
_IN_EVERY_NAME = ("codec", "plan")
# Prefix of a setting of the run that gave the first weights.
_OF_START = "init_from."
_STAGES_OF_START = f"{_OF_START}stages"
_LMBDA_OF_START = f"{_OF_START}lmbda"
# These settings differ whenever the rectifier's stages do, which the codec's suffix shows. They are
# compared only among curves with the same suffix.
_FOLLOWING = ("stages", "init_from", _STAGES_OF_START, "rectifier_width")

_DEFAULTS = json.loads(json.dumps(dataclasses.asdict(Experiment())))


class Trained(NamedTuple):
    """Known facts about a model.

    Attributes:
      codec: name of the codec.
      experiment: the experiment from the manifest. Missing fields have their defaults.
      precision: precision of the exported transforms, or None for a model that is not exported.
      init_from: the record of the run that gave the first weights, see
        `tfquant/training/folder.py`. None if there was none or if it is unknown.
      lmbda: weight of the distortion at which the model codes, or None for that of the experiment.
    """

    codec: str
    experiment: dict[str, Any]
    precision: str | None = None
    init_from: dict[str, Any] | None = None
    lmbda: float | None = None


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
        {key: value for key, value in each.items() if _identifies(key)} for each in settings
    ]
    lmbdas = [_plain(each["lmbda"] if m.lmbda is None else m.lmbda)
              for m, each in zip(models, settings)]  # fmt: skip
    for members in _groups(identities):
        _separate_starts(members, settings, identities)
    for members in _groups(identities):
        rivals = [(a, b) for a, b in itertools.combinations(members, 2) if lmbdas[a] == lmbdas[b]]
        keys = dict.fromkeys(key for i in members for key in settings[i])
        differing = [
            key for key in keys
            if key not in identities[members[0]]
            and any(settings[a].get(key) != settings[b].get(key) for a, b in rivals)
        ]  # fmt: skip
        follow = [key for key in differing if _kind(key) != roles.REPETITION]
        follow.sort(key=lambda key: key not in roles.WIDTHS)
        for i in members:
            identities[i].update(
                {k: settings[i].get(k) for k in sorted(differing) if k not in follow}
            )
        for i, values in _families(members, follow, settings, lmbdas).items():
            identities[i].update(values)
    for members in _groups(identities):
        places = []
        found: collections.Counter[Any] = collections.Counter()
        for i in members:
            found[lmbdas[i]] += 1
            places.append(found[lmbdas[i]])
        if max(places) > 1:
            for i, place in zip(members, places):
                identities[i][_REPEAT] = place
    shown = _with_shortest_paths(identities, models)
    return [Identified(*pair) for pair in zip(_names(shown), shown)]


def shared(identities: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the settings that all identities have in common and that are not the defaults."""
    first, *others = identities
    default = {**_DEFAULTS, "init_from": False, EXPORT_PRECISION: _DEFAULTS["precision"]}
    return {
        key: value
        for key, value in first.items()
        if key not in (*_IN_EVERY_NAME, "stages", _STAGES_OF_START) and value != default.get(key)
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
        and not key.startswith(("qr_", "rectifier_", _OF_START))
    ]  # fmt: skip


def describe(settings: dict[str, Any]) -> str:
    """Returns `key=value` for each setting that has a value, named as the flags of train.py."""
    return " ".join(f"{key}={_text(value)}" for key, value in settings.items() if _text(value))


def _settings(model: Trained) -> dict[str, Any]:
    """Returns all settings with an effect on a model, codec options included, in a fixed order."""
    values = {**_DEFAULTS, **current_values(model.experiment), "codec": model.codec}
    started = bool(values["init_from"])
    needs_start = "joint" not in roles.executed(values)
    effects = roles.Effects(values, model.init_from is None and (started or needs_start))
    values = roles.normal(values)
    options = values.pop("codec_options")
    executed = [stage for stage in values["stages"] if stage in effects.executed]
    values.update(stages=executed, init_from=started)
    order = [
        *(key for key in _DEFAULTS if key in values),
        *sorted(values.keys() - _DEFAULTS.keys()),
    ]
    found = {key: _plain(values[key]) for key in order if not effects.reason(key)}
    if executed and executed[0] in _NEED_A_START:
        del found["init_from"]
    found.update((key, _plain(value)) for key, value in sorted(options.items()))
    if model.precision is not None:
        found[EXPORT_PRECISION] = model.precision
    if model.init_from is not None:
        return _continued(found, _settings(_start_of(model)))
    if started:
        found[_STAGES_OF_START] = "unknown"
    return found


def _start_of(model: Trained) -> Trained:
    """Returns what is known of the run that gave a model's first weights."""
    assert model.init_from is not None
    experiment = model.init_from["experiment"]
    codec = experiment.get("codec", model.codec)
    return Trained(codec, experiment, init_from=model.init_from.get("init_from"))


def _with_starts(model: Trained) -> Iterator[Trained]:
    """Yields a model, the run that gave its first weights, the run before that, and so on."""
    yield model
    while model.init_from is not None:
        model = _start_of(model)
        yield model


def _continued(own: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a run with those of the run that it started from."""
    of_start, inherited = {}, {}
    for key, value in start.items():
        if key == "init_from":
            named = value
        else:
            named = key == "stages" or key.startswith(_OF_START) or own.get(key, value) != value
        if named:
            of_start[f"{_OF_START}{key}"] = value
        elif key not in own and key != "init_from":
            inherited[key] = value
    return {**own, **inherited, **of_start}


def _kind(key: str) -> str:
    """Returns the kind of a setting, see `tfquant/training/roles.py`."""
    name = key.rpartition(".")[2]
    if name in roles.WIDTHS:
        return roles.FOLLOWS
    return roles.ROLES[name].kind if name in roles.ROLES else roles.IDENTITY


def _identifies(key: str) -> bool:
    """Returns true if a setting always identifies the curve."""
    return _kind(key) in (roles.IDENTITY, roles.START)


def _separate_starts(
    members: Sequence[int], settings: Sequence[dict[str, Any]], identities: Sequence[dict[str, Any]]
) -> None:
    """Separates models that started at another lmbda than their own from those at the same lmbda.

    If all members started at one lmbda, they stay together.
    """
    others = {i: settings[i][_LMBDA_OF_START] for i in members if _LMBDA_OF_START in settings[i]}
    all_of_them = {others.get(i, settings[i]["lmbda"]) for i in members}
    if others and len(others) < len(members) and len(all_of_them) > 1:
        values = sorted(set(others.values()))
        for i in others:
            identities[i][_LMBDA_OF_START] = values[0] if len(values) == 1 else values


def _families(
    members: Sequence[int],
    keys: Sequence[str],
    settings: Sequence[dict[str, Any]],
    lmbdas: Sequence[Any],
) -> dict[int, dict[str, Any]]:
    """Returns the values of widths and lengths that identify each model's curve.

    With equally many different values at each lmbda, the values from the smallest to the largest
    belong to one curve each, and a curve is identified by its values in the order of lmbda.
    Otherwise, each different value is a curve.
    """

    def size(values: tuple) -> list:
        return [(value is not None, value or 0) for value in values]

    own = {i: tuple(settings[i].get(key) for key in keys) for i in members}
    found = {i: dict(zip(keys, own[i])) for i in members}
    order = sorted({lmbdas[i] for i in members}, key=lambda lmbda: size((lmbda,)))
    columns = [sorted({own[i] for i in members if lmbdas[i] == lmbda}, key=size) for lmbda in order]
    if len(set(map(len, columns))) > 1:
        return found
    for place, family in enumerate(zip(*columns)):
        of_family = {i for i in members if columns[order.index(lmbdas[i])][place] == own[i]}
        for key, along in zip(keys, zip(*family)):
            values = list(dict.fromkeys(along))
            for i in of_family:
                found[i][key] = values[0] if len(values) == 1 else values
    return found


def _with_shortest_paths(
    identities: Sequence[dict[str, Any]], models: Sequence[Trained]
) -> list[dict[str, Any]]:
    """Returns the identities with the shortest of the given spellings of training pictures."""
    spellings: dict[str, list[str]] = collections.defaultdict(list)
    for model in models:
        for run in _with_starts(model):
            text = run.experiment.get("train_images") or ""
            spellings[sources.canonical(text)].append(text)
    shortest = {same: min(texts, key=lambda t: (len(t), t)) for same, texts in spellings.items()}
    return [
        {
            key: shortest[value] if key.rpartition(".")[2] == "train_images" else value
            for key, value in each.items()
        }
        for each in identities
    ]


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

    A missing codec option counts as a value, the codec's default, and so does a missing setting of
    the run that gave the first weights, the run's own.
    """
    found = identities
    if key in _DEFAULTS or key == _STAGES_OF_START:
        found = [each for each in identities if key in each]
    return len({json.dumps(each.get(key)) for each in found}) > 1


def _rectified(identity: dict[str, Any]) -> str:
    """Returns a suffix for the rectifier stages of a codec; empty if there were none.

    `+STP` is a codec with a rectifier from soft-to-predictive training, `+QR` one with a rectifier
    from the predictive stage alone. `+decoder` is a codec without rectifier whose decoder alone was
    trained further, for comparison. `+soft` is a codec whose soft stage changed all weights. Alone,
    it decodes without rectifier.
    """
    soft, predictive = (stage in identity["stages"] for stage in roles.RECTIFYING)
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
