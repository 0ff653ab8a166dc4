"""The report in a real browser."""

from pathlib import Path

from helpers.browser import Reader


def test_a_page_that_fetches_is_caught(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text('<html><img src="https://example.com/a.png"><script>throw new Error("no")</script>')
    reader.open(path)
    assert reader.requests == ["https://example.com/a.png"]
    assert any("no" in error for error in reader.errors)
    assert any("image-alt" in one for one in reader.violations())


def test_again(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("<html lang=en><title>a</title><main>a</main>")
    reader.open(path)
    assert reader.requests == []
    assert reader.violations() == []
