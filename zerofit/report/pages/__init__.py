"""HTML pages, a module for each kind: a page is a list of sections, a section a function from data to parts."""
