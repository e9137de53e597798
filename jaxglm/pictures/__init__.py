"""Pictures of results: what the `plot_` methods of `GLMResults` draw.

`canvas` has what all share, and is the only module that knows matplotlib; `terms` looks at one term over all groups,
`states` at how the fits went, `rows` at the rows of one group. A picture is drawn on the axes that are given, or on those
of a new figure, and the axes are returned. No setting of matplotlib is changed. What cannot be drawn is counted in the
caption below the picture.
"""
