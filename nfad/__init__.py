__version__ = "0.1.0"

from importlib import import_module

# Public names and the module each lives in. They load on first use, so that `import nfad` costs
# nothing: jax comes with `detector`, scikit-learn with `select`.
_HOME = {
    "FlowDetector": "detector",
    "load_dataset": "data", "split_dataset": "splits",
    "feature_names": "prep", "Transform": "prep",
    "evaluate": "score", "threshold_at_fpr": "score", "conformal_p_values": "score", "score_window": "windows",
    "ProfileStatistic": "statistics",
    "Background": "shapley", "shapley_values": "shapley", "explain_records": "reasons",
    "few_shot": "select", "label_free": "select",
    "NeuralClassifier": "network", "network_to_onnx": "quantize", "flow_to_onnx": "quantize",
    "score_files": "files", "score_frame": "files", "Scorer": "streams",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'nfad' has no attribute {name!r}; it has {sorted(_HOME)}")
    return getattr(import_module(f"nfad.{_HOME[name]}"), name)


def __dir__():
    return __all__
