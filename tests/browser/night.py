"""A night with hosts, services and times: the simulated demo set, named as a sensor would name it, from `nfad train` to `nfad explain`."""
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from nfad.cli import main
from nfad.demo import simulate_demo

PORTS = {"port scan": 0, "SSH brute force": 22, "SYN flood": 443, "HTTP flood": 80, "slow HTTP": 80, "DNS amplification": 53, "exfiltration": 443,
         "dns": 53, "ssh": 22, "mail": 587, "web": 443, "streaming": 443, "iot": 8883}


def named(records: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    "Records of the demo set with addresses, a port and a time: one source for each conversation, one target for each service."
    rng = np.random.default_rng(seed)
    who = pd.factorize(records["conversation"])[0]
    what = pd.factorize(records["service"])[0]
    begin = rng.integers(0, 6 * 3600, who.max() + 1)[who] + rng.integers(0, 240, len(records))
    port = records["service"].map(PORTS).fillna(443).astype(int).to_numpy()
    port = np.where(port == 0, rng.integers(1, 1024, len(records)), port)
    return pd.DataFrame({
        "Source IP": [f"10.0.{k // 200}.{k % 200 + 10}" for k in who], "Destination IP": [f"192.168.7.{k + 2}" for k in what],
        "Destination Port": port, "Timestamp": pd.Timestamp("2026-11-27 22:00") + pd.to_timedelta(begin, unit="s")}).join(
            records.drop(columns=["service", "conversation", "day"]).reset_index(drop=True))


def make_night(folder: Path, n_benign: int = 4000, n_attack: int = 25, top: int = 150) -> tuple[Path, Path]:
    "A model and the folder of alerts, made by the command line."
    demo = simulate_demo(n_benign, n_attack, seed=1)
    calm = demo[demo["Label"] == "BENIGN"]
    order = np.random.default_rng(2).permutation(len(calm))
    night = pd.concat([calm.iloc[order[len(calm) * 3 // 4:]], demo[demo["Label"] != "BENIGN"]])
    folder.mkdir(parents=True, exist_ok=True)
    named(calm.iloc[order[:len(calm) * 3 // 4]]).drop(columns="Label").to_parquet(folder / "benign.parquet")
    (folder / "night").mkdir()
    named(night).drop(columns="Label").to_parquet(folder / "night" / "flows.parquet")
    words = f"train --benign-path {folder}/benign.parquet --out-dir {folder}/runs --preset fast --epochs 6 --quiet"
    assert main(words.split()) == 0
    model, = folder.glob("runs/*/*/model.safetensors")
    assert main(f"score {model} {folder}/night {folder}/scores --quiet".split()) == 0
    assert main(f"explain {model} {folder}/night {folder}/scores --out {folder}/alerts --top {top} --quiet".split()) == 0
    return model, folder / "alerts"


def draw_desk(target: Path):
    "A picture of the desk: an incident of several records, and what was said of those before it."
    from PIL import Image
    from playwright.sync_api import sync_playwright
    from nfad.server import served
    from nfad.widget import open_desk
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        model, alerts = make_night(Path(folder) / "night")
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with served(open_desk(alerts, who="anna", model=model)) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 940})
            page.goto(address)
            page.wait_for_selector(".card h2")
            page.locator(".list").focus()
            for key in "abau": page.keyboard.press(key)
            page.wait_for_function("() => document.querySelector('footer .status').textContent.startsWith('unsure')")
            page.wait_for_selector("text=Incident 5:")
            page.wait_for_timeout(500)
            page.screenshot(path=f"{folder}/desk.png")
        Image.open(f"{folder}/desk.png").convert("RGB").quantize(128).save(target, optimize=True)  # a third of the bytes
        browser.close()
