"""The page's template, styles and scripts."""
