"""Tables and plots of what the other rooms computed."""
