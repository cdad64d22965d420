"""Package metadata, read from settings.ini so that it is written once."""
import re
import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

here = Path(__file__).resolve().parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

groups = {key.removesuffix("_requirements"): text.split() for key, text in settings.items() if key.endswith("_requirements")}
groups["all"] = sorted({name for group, names in groups.items() if group not in ("dev", "peers", "site") for name in names})
groups["dev"] += groups["all"]

url = settings["git_url"]
readme = here / "README.md"
story = readme.read_text(encoding="utf-8") if readme.exists() else ""
story = re.sub(r"(!\[[^\]]*\])\((?!\w+:|#)", rf"\1({url}/raw/main/", story)  # a page of an index has no files beside it
story = re.sub(r"\]\((?!\w+:|#)", f"]({url}/blob/main/", story)
classifiers = [
    "Development Status :: 3 - Alpha",
    f"Intended Audience :: {settings['audience']}",
    "Intended Audience :: Information Technology",
    f"Natural Language :: {settings['language']}",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3 :: Only",
    *(f"Programming Language :: Python :: {number}" for number in settings["pythons"].split()),
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Security",
    "Topic :: System :: Networking :: Monitoring",
    "Typing :: Typed",
]



class BuildWithStubs(build_py):
    "Writes the stubs of modules (00c_stubs) beside their copies."

    def run(self):
        super().run()
        if self.editable_mode: return
        sys.path.insert(0, str(here))
        from nfad.stubs import write_stubs
        write_stubs(here / "nfad", Path(self.build_lib) / "nfad")


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=story,
    long_description_content_type="text/markdown",
    author=settings["author"],
    license="MIT",
    license_files=["LICENSE"],
    url=url,
    project_urls={"Source": url, "Issues": f"{url}/issues", "Changelog": f"{url}/blob/main/CHANGELOG.md", "Security": f"{url}/blob/main/SECURITY.md"},
    classifiers=classifiers,
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    packages=[settings["lib_name"]],
    package_data={settings["lib_name"]: ["py.typed", "*.pyi", "*.js", "*.css"]},
    include_package_data=False,
    install_requires=settings["requirements"].split(),
    entry_points={"console_scripts": settings["console_scripts"].split()},
    extras_require=groups,
    cmdclass={"build_py": BuildWithStubs},
)
