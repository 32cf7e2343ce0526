"""The page of ``dual-loop demo``: one's own words and regions, asked of a model in a browser.

It asks as ``dual-loop segment`` and ``dual-loop describe`` do. ``layout`` and ``server`` need requirements/demo.txt,
the rest does not.
"""
