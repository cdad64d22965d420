"""Finds and explains anomalous network traffic with normalizing flows.

nfad is read as notebooks, in nbs/ of its repository. The evening path leads through seven of them: 01_packets, 01d_splits,
02a_flow, 02c_statistics, 03_train, 04_score, 04c_reasons. In code start with `nfad.load_dataset`, `nfad.split_dataset` and
`nfad.FlowDetector`.
"""
__version__ = "0.1.0"

import sys
from importlib import import_module
from importlib.machinery import PathFinder, SourceFileLoader
from os.path import basename

# Public names and the module each lives in. They load on first use, so that `import nfad` costs
# nothing: jax comes with `detector`, scikit-learn with `rankings`.
_HOME = {
    "FlowDetector": "detector",
    "flows_from_packets": "packets", "flow_records": "wire", "read_capture": "headers",
    "load_dataset": "data", "split_dataset": "splits",
    "feature_names": "prep", "Transform": "prep",
    "evaluate": "score", "threshold_at_fpr": "score", "conformal_p_values": "score", "score_window": "windows",
    "ProfileStatistic": "statistics",
    "Background": "shapley", "shapley_values": "shapley", "explain_records": "reasons",
    "PyodFlow": "pyod", "explain_detector": "pyod",
    "few_shot": "rankings", "label_free": "rankings",
    "NeuralClassifier": "network", "network_to_onnx": "export", "flow_to_onnx": "export_flow",
    "score_files": "files", "score_frame": "files", "Scorer": "streams",
    "triage": "widget",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'nfad' has no attribute {name!r}; it has {sorted(_HOME)}")
    return getattr(import_module(f"nfad.{_HOME[name]}"), name)


def __dir__():
    return __all__


def _is_command(words):
    "Whether this process is the command `nfad`, and no place where one asks for the help of functions."
    return basename(words[0] if words else "").lower() in ("nfad", "nfad.exe", "nfad-script.py")


class _Documented(SourceFileLoader):
    "Loads a module of nfad, and lets `help` show what the comments beside arguments say: see 00c_docs."

    def exec_module(self, module):
        super().exec_module(module)
        if sys.flags.optimize == 2 or _is_command(sys.argv): return  # nobody will ask for help
        from nfad.docs import document
        try: document(module, self.get_source(module.__name__))
        except (ImportError, OSError, SyntaxError, UnicodeError): pass  # no source, or it changed meanwhile: help stays short


class _Finder:
    "Finds modules of nfad as Python does, and loads them as `_Documented`."

    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name.startswith("nfad.") else None
        if spec is not None and type(spec.loader) is SourceFileLoader: spec.loader = _Documented(name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)
