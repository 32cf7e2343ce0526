from llava_sam2.paths import resolve


def test_relative_paths_are_read_against_the_checkout(checkout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve('assets/tiny') == checkout / 'assets/tiny'
    assert resolve(tmp_path / 'data') == tmp_path / 'data'
