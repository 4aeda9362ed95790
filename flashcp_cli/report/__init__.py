"""The report of `flashcp simulate`: one self-contained page, and its plots as SVG and PNG.

Plots are Vega-Lite: a plot is a JSON document, so the page and the exported files draw the same
one, the page redraws it for light and dark, and its menu saves SVG and PNG. vl-convert-python
brings the whole library as one 0.9 MB script to put into the page, and draws without a browser.
Matplotlib would give pictures that do not resize or answer to a finger; Plotly's script alone is
five times the size.
"""
