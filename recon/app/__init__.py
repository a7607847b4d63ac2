"The workbench for one photo, in a notebook or as a page."
