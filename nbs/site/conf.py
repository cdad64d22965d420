"""Sphinx reads this; build.py prepares what it reads, and runs it."""
import os

project, author = "nfad", "the nfad authors"
version = release = os.environ.get("NFAD_SITE_VERSION", "")
copyright = "2026, the nfad authors. MIT licence"
extensions = ["myst_nb", "sphinx.ext.linkcode"]
exclude_patterns = ["conf.py", "extra"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_mime_priority_overrides = [("html", "text/html", 10), ("html", "text/markdown", 20), ("html", "image/png", 30), ("html", "image/svg+xml", 30), ("html", "text/latex", 40), ("html", "text/plain", 50)]
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]  # a notebook may skip a level; widgets need a kernel
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
add_module_names = smartquotes = False
toc_object_entries_show_parents = "hide"

mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}

html_theme = "sphinx_book_theme"
html_title = "nfad"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_favicon = html_logo = "_static/nfad.svg"
html_extra_path = ["extra"]
html_context = {"default_mode": "auto"}
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "pygments_light_style": pygments_style, "pygments_dark_style": pygments_dark_style,
    "home_page_in_toc": False, "show_navbar_depth": 1, "max_navbar_depth": 3, "show_toc_level": 2, "collapse_navbar": True,
    "use_download_button": False, "use_fullscreen_button": False, "use_repository_button": False, "use_edit_page_button": False,
    "back_to_top_button": True, "article_header_end": ["article-header-buttons"], "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True, "footer_content_items": ["copyright"], "toc_title": "On this page",
    "navbar_start": [], "navbar_center": [], "navbar_end": [], "navbar_persistent": [], "logo": {"text": "nfad", "alt_text": ""}}


def linkcode_resolve(domain, info):
    "The page of a module's code, at the line of a definition; both kinds of pages lie in sibling folders."
    from build import lines_of
    line = lines_of(info["module"]).get(info["fullname"]) if domain == "py" and info["module"] else None
    return f"../code/{info['module'].removeprefix('nfad.')}.html#line-{line}" if line else None
