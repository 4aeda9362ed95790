import json
from pathlib import Path
from typing import Any

import pytest

from costmodel import ProfileError, Source, load_profile
from costmodel.build_profiles import DATA_SHEETS, build_profile
from costmodel.profile_file import bundled_profiles, profile_text, read_profile, write_profile

DELETE = object()


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(profile_text(load_profile("h100-sxm")))
    return loaded


def changed(path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return the h100-sxm profile with the field at `path` replaced (or deleted)."""
    root: Any = document()
    part = root
    for key in path[:-1]:
        part = part[key]
    if value is DELETE:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    loaded: dict[str, Any] = root
    return loaded


def refusal(path: Path) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


BROKEN = {
    "another format": (("format",), "safetensors", "format is 'safetensors', not 'flashcp"),
    "no format": (("format",), DELETE, "format is None"),
    "an older version": (("version",), 0, "version is 0, but this program reads 1 and 2; it is"),
    "a newer version": (("version",), 3, "version is 3, but this program reads 1 and 2; it is new"),
    "a version that is text": (("version",), "1", "version is '1'"),
    "a version that is true": (("version",), True, "version is True"),
    "no name": (("name",), DELETE, "name is missing"),
    "an empty name": (("name",), " ", 'name is " ", not a text'),
    "an unknown field": (("colour",), "red", "colour is not a field of this version"),
    "an unknown figure field": (("launch_us", "unit"), "ms", "launch_us.unit is not a field"),
    "a figure without a source": (("launch_us", "source"), DELETE, "launch_us.source is missing"),
    "an unknown source": (
        ("launch_us", "source"), "guessed",
        "launch_us.source is 'guessed'; it must be one of: measured, interpolated",
    ),
    "a negative latency": (("network", "step_us", "value"), -3, "network.step_us.value is -3"),
    "a bandwidth of zero": (("network", "nic_gbps", "value"), 0, "network.nic_gbps.value is 0"),
    "a number that is text": (
        ("copies", "per_shard_us", "value"), "fast", 'per_shard_us.value is "fast", not a number',
    ),
    "a share above one": (("copies", "memory_share", "value"), 1.5, "is 1.5, not in 0.001..1"),
    "an overlap that speeds up": (("overlap_factor", "value"), 0.9, "overlap_factor.value is 0.9"),
    "half a GPU": (("network", "gpus_per_node"), 0.5, "gpus_per_node is 0.5, not a whole number"),
    "no GPUs": (("network", "gpus_per_node"), 0, "gpus_per_node is 0, not in 1..4096"),
    "a part that is a list": (("network",), [], "network is [], not an object"),
    "curves that are an object": (("collectives", "curves"), {}, "curves is {}, not a list"),
    "curves that were not measured": (
        ("collectives", "source"), "extrapolated", "collectives.source must be measured",
    ),
    "an unknown collective": (
        ("collectives", "curves", 0, "collective"), "all_reduce", "[0].collective is 'all_reduce'",
    ),
    "a group of one": (("collectives", "curves", 0, "ranks"), 1, "curves[0].ranks is 1"),
    "a group measured twice": (
        ("collectives", "curves", 0, "collective"), "all_to_all", "holds all_to_all on 2 twice",
    ),
    "times that fall": (
        ("collectives", "curves", 0, "times_us", 3), 1.0, "times_us falls from 5.29 to 1",
    ),
    "sizes that repeat": (
        ("collectives", "curves", 0, "sizes_bytes", 1), 512.0, "sizes_bytes falls from 512 to 512",
    ),
    "a time too few": (
        ("collectives", "curves", 0, "times_us"), [5.0], "times_us has 1 values for 16 sizes",
    ),
    "no points": (("collectives", "curves", 0, "sizes_bytes"), [], "sizes_bytes is empty"),
    "a time that is null": (
        ("collectives", "curves", 0, "times_us", 0), None, "times_us[0] is null, not a number",
    ),
    "no held-out errors": (("provenance", "held_out"), None, "held_out is null, not a list"),
    "attention without fits": (("attention", "fits"), [], "has no forward fit"),
    "CPU rows that are one number": (
        ("attention", "fits", 0, "cpu_rows"), [5], "cpu_rows is [5.0], not two whole numbers up to",
    ),
    "CPU rows that are half": (
        ("attention", "fits", 0, "cpu_rows"), [2.5, 8], "fits[0].cpu_rows is [2.5, 8.0], not two",
    ),
    "more CPU rows than there can be": (
        ("attention", "fits", 0, "cpu_rows"), [5, 5000], "[5.0, 5000.0], not two whole numbers",
    ),
    "CPU rows below none": (
        ("attention", "fits", 0, "cpu_rows"), [5, -1], "cpu_rows[1] is -1, not at least 0",
    ),
    "CPU rows that are null": (
        ("attention", "fits", 0, "cpu_rows"), None, "cpu_rows is null, not a list of numbers",
    ),
    "a negative sample count": (
        ("provenance", "attention_samples"), -1, "provenance.attention_samples is -1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_profile_is_refused_in_one_line_naming_field_and_value(
    case: str, tmp_path: Path
) -> None:
    path, value, expected = BROKEN[case]
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(changed(path, value)))
    assert expected in refusal(file)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999", "9" * 400])
def test_a_number_that_is_not_finite_is_refused(literal: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    text = json.dumps(changed(("launch_us", "value"), "HERE"))
    file.write_text(text.replace('"HERE"', literal))
    assert "launch_us.value is" in refusal(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"\xff\xfe{}", "byte 0 is not UTF-8"),
        (b"[]", "holds a list, not an object"),
        (b"{", "is not JSON"),
        (b'{"format": }', "line 1, byte 11"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_not_a_json_object_is_refused(
    content: bytes, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    file.write_bytes(content)
    assert expected in refusal(file)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    text = profile_text(load_profile("a100-sxm"))
    for share in (0.1, 0.5, 0.99):
        file.write_text(text[: int(len(text) * share)])
        assert "is not JSON" in refusal(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.json")


def test_a_folder_is_not_a_profile(tmp_path: Path) -> None:
    folder = tmp_path / "profile.json"
    folder.mkdir()
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100", "did you mean 'h100-sxm'?"),
        ("H200-SXM5", "did you mean 'h200-sxm'?"),
        ("tpu", "there are: a100-sxm, h100-sxm, h200-sxm"),
        ("", "there are: a100-sxm, h100-sxm, h200-sxm"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(
        ProfileError, match="neither a bundled profile nor a profile file"
    ) as caught:
        load_profile(name)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", bundled_profiles())
def test_a_profile_survives_its_file_exactly(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    file = tmp_path / "profile.json"
    write_profile(profile, file)
    assert read_profile(file) == profile
    assert load_profile(str(file)) == profile
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_a_profile_of_version_1_is_read_as_it_was_meant(tmp_path: Path) -> None:
    old = document() | {"version": 1}
    del old["exchange_overlap_factor"]
    for curve in old["collectives"]["curves"]:
        del curve["ranks_per_node"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    profile = load_profile(path)
    assert profile.exchange_overlap_factor.value == 1
    assert profile.exchange_overlap_factor.source is Source.REPORTED
    assert profile.to_json() == load_profile("h100-sxm").to_json()


def test_version_2_lacks_no_figure_silently(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(changed(("exchange_overlap_factor",), DELETE)))
    assert "exchange_overlap_factor is missing" in refusal(path)


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_profile(load_profile("a100-sxm"), tmp_path / "profile.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(DATA_SHEETS))
def test_the_bundled_profile_is_what_the_tables_give(name: str) -> None:
    # Linear algebra may round the last digits differently elsewhere.
    assert_close(json.loads(profile_text(build_profile(name))), json.loads(bundled(name)), name)


def test_every_built_profile_is_bundled() -> None:
    assert bundled_profiles() == sorted(DATA_SHEETS)


def bundled(name: str) -> str:
    return profile_text(load_profile(name))


def assert_close(built: Any, committed: Any, where: str) -> None:
    if isinstance(built, dict):
        assert built.keys() == committed.keys(), where
        for key in built:
            assert_close(built[key], committed[key], f"{where}.{key}")
    elif isinstance(built, list):
        assert len(built) == len(committed), where
        for i, (one, other) in enumerate(zip(built, committed, strict=True)):
            assert_close(one, other, f"{where}[{i}]")
    elif isinstance(built, float):
        assert built == pytest.approx(committed, rel=1e-3, abs=2e-4), where
    else:
        assert built == committed, where
