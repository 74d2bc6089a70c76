"""Flagfiles and paths of the programs with absl flags."""

from __future__ import annotations

import codecs

import pytest
from absl import flags

from tfquant.commands import flagfiles, program

TEXT = "# a comment\n// another\n\n--plan=aun\n  --train_images=two words/\u00e4  \n--nojit\n"
EXPECTED = ["--plan=aun", "--train_images=two words/\u00e4", "--nojit"]


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-32"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.encode("cp1252"),
    ],
)
def test_a_flagfile_is_read_as_any_editor_wrote_it(tmp_path, data):
    (tmp_path / "a.flags").write_bytes(data)
    path = tmp_path / "a.flags"
    assert flagfiles.expanded(["--N=8", f"--flagfile={path}", "--M=8"]) == [
        "--N=8", *EXPECTED, "--M=8"
    ]  # fmt: skip
    assert flagfiles.expanded(["--flagfile", str(path)]) == EXPECTED


def test_flagfiles_are_expanded_as_absl_does(tmp_path):
    (tmp_path / "inner.flags").write_text("--b=2\n")
    (tmp_path / "outer.flags").write_text(f"--a=1\n--flagfile={tmp_path}/inner.flags\n--c=3\n")
    arguments = ["--x", f"--flagfile={tmp_path}/outer.flags", "--y=1", "--", "--flagfile=kept"]
    by_absl = flags.FlagValues().read_flags_from_files(arguments, force_gnu=True)
    assert flagfiles.expanded(arguments) == by_absl


def test_a_flagfile_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.flags").write_text("--a=1\n")
    assert flagfiles.expanded(["--flagfile=~/a.flags"]) == ["--a=1"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"--a=1\nb=2\n", "expected a line --flag=value, got 'b=2'"),
        (b"PK\x03\x04\x00\x00rest", "is not a text file"),
        (b"--flagfile=SELF\n", "names itself"),
        (None, "No such file or directory"),
    ],
)
def test_a_flagfile_that_cannot_be_followed_is_one_line(tmp_path, data, words):
    path = tmp_path / "a.flags"
    if data is not None:
        path.write_bytes(data.replace(b"SELF", str(path).encode()))
    with pytest.raises(flagfiles.FlagfileError) as error:
        flagfiles.expanded([f"--flagfile={path}"])
    assert words in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tilde_is_the_home_folder_in_flags_that_are_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    values = flags.FlagValues()
    flags.DEFINE_string("one", None, "", flag_values=values)
    flags.DEFINE_string("none", None, "", flag_values=values)
    flags.DEFINE_list("many", [], "", flag_values=values)
    values(["program", "--one=~/x", "--many=~/a,b,~/c"])
    program.expand_paths(values, ("one", "none", "many"))
    assert (values.one, values.none) == (f"{tmp_path}/x", None)
    assert values.many == [f"{tmp_path}/a", "b", f"{tmp_path}/c"]
    assert values["one"].present


@pytest.mark.parametrize(
    ("name", "flag"),
    [("train", "model_dir"), ("train", "init_from"), ("eval", "model_dir"), ("eval", "baseline"),
     ("eval", "report_dir"), ("eval", "anchor"), ("sweep", "base"), ("sweep", "out")],
)  # fmt: skip
def test_every_program_expands_its_paths(tmp_path, monkeypatch, name, flag):
    """Each program stops at the first line that looks at a path; the value is expanded by then."""
    import importlib

    module = importlib.import_module(program.PROGRAMS[name])
    values = flags.FlagValues()
    seen = {}

    def stop(found, names):
        program.expand_paths(found, names)
        seen.update({each: found[each].value for each in names})
        raise SystemExit

    module.define_flags(values)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module.flags, "FLAGS", values)
    monkeypatch.setattr(module, "expand_paths", stop)
    required = {"train": ["--model_dir=m"], "eval": ["--report_dir=r"],
                "sweep": ["--base=b", "--out=o"]}[name]  # fmt: skip
    values([name, *required, f"--{flag}=~/x"])
    with pytest.raises(SystemExit):
        module.main([name])
    assert seen[flag] in (f"{tmp_path}/x", [f"{tmp_path}/x"])


def test_an_interrupted_program_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_run", interrupted)
    with pytest.raises(SystemExit) as stop:
        program.run_program("eval", ["eval.py"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "eval.py: interrupted\n"
