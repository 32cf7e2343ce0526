"""The command line of tools/make_demo_data.py."""

import json
import subprocess
import sys


def test_makes_the_folder_once_reports_it_and_refuses_other_settings(checkout, tmp_path):
    def run(*args):
        command = [sys.executable, str(checkout / 'tools' / 'make_demo_data.py'), str(out), *args]
        return subprocess.run(command, capture_output=True, text=True)

    out = tmp_path / 'demo'
    first = run('--images', '4', '--seed', '7', '--workers', '1')
    assert first.returncode == 0, first.stderr
    assert 'refcoco 4' in first.stdout
    assert json.loads((out / 'manifest.json').read_text())['seed'] == 7

    again = run('--images', '4', '--seed', '7')
    assert again.returncode == 0 and again.stdout == first.stdout and '%' not in again.stderr

    refused = run('--images', '5')
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1 and 'remove the folder' in refused.stderr
