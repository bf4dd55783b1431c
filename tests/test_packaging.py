"""What an installation brings: the packaged keys and recipes, and no stray top-level module."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "src"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: the wheel is built from the tracked files")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_one_top_level_package_and_every_configuration_file(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"yolo_lt"}
    for path in (ROOT / "cfg").rglob("*.yaml"):
        assert f"yolo_lt/cfg/{path.relative_to(ROOT / 'cfg').as_posix()}" in names
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "yolo_lt").rglob("*.py")}
    assert modules <= set(names)
    assert "yolo_lt/py.typed" in names
    assert {f"yolo_lt/report/templates/page.{kind}" for kind in ("html", "css", "js")} <= set(names)


@pytest.mark.slow
def test_the_installed_wheel_finds_its_keys(wheel, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = "import yolo_lt, yolo_lt.config as c; print(yolo_lt.__file__, c.resolve({})['recipe'], c.load_recipe('cb'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(target) in done.stdout
    assert "recommended" in done.stdout


def test_the_readme_lists_every_key_as_the_yaml_has_it():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from keys_table import table
    finally:
        sys.path.pop(0)
    assert table() in (ROOT / "README.md").read_text()


def test_every_dependency_says_why():
    text = (ROOT / "pyproject.toml").read_text()
    lists = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in lists.splitlines() if line.startswith('  "') and "yolo-lt[test]" not in line]
    assert len(lines) >= 15
    assert not [line for line in lines if "  #" not in line and ", #" not in line and "# " not in line]
