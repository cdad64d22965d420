"""Package metadata, read from settings.ini so that it is written once."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

groups = {key.removesuffix("_requirements"): text.split() for key, text in settings.items() if key.endswith("_requirements")}
groups["all"] = sorted({name for group, names in groups.items() if group not in ("dev", "peers", "site") for name in names})
groups["dev"] += groups["all"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    license="MIT",
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    packages=[settings["lib_name"]],
    install_requires=settings["requirements"].split(),
    entry_points={"console_scripts": settings["console_scripts"].split()},
    extras_require=groups,
)
