"""Reports as files to look at: HTML pages and SVG pictures. Knows what was found and done, and no command line."""
