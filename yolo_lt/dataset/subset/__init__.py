"""New data sets of the images of one: long-tailed subsets, stratified splits, and how they are shown. Pure numpy."""
