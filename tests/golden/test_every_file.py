"""Every golden file has a test module, wherever the files are."""

from golden import HERE, directory


def test_every_golden_file_is_tested() -> None:
    files = {path.stem.replace("-", "_") for path in directory().glob("*.json")}
    modules = {path.stem.removeprefix("test_") for path in HERE.glob("test_[0-9]*.py")}
    assert files, f"no golden files in {directory()}"
    assert files <= modules, f"without a test module: {sorted(files - modules)}"
