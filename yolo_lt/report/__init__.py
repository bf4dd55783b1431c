"""What the other rooms computed, for people to read.

`results` and `words` make blocks of it, `page` and its like put them in order, and `blocks` (terminal, Markdown),
`drawing` (PNG, SVG) and `html` show them.
"""
