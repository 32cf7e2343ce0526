"""CITATION.cff says what the package says of itself."""

from configparser import ConfigParser

import yaml

from dual_loop import __version__


def test_it_agrees_with_the_package(checkout):
    cited = yaml.safe_load((checkout / 'CITATION.cff').read_text())
    setup = ConfigParser()
    setup.read(checkout / 'setup.cfg')
    metadata = setup['metadata']
    assert cited['cff-version'] == '1.2.0' and cited['type'] == 'software' and cited['message'] and cited['abstract']
    assert (cited['title'], cited['version'], cited['license']) == (metadata['name'], __version__, metadata['license'])
    assert cited['authors'] == [dict(name=metadata['author'])]
