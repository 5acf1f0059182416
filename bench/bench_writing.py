"""What writing features costs beside making them: frozen nets and descriptors over demo clips.

Two random nets embed each clip, and all descriptors of profile ``paper`` are written. Processor
time within `CacheWriter`, of all that the run takes, its workers included.

    python bench/bench_writing.py [--clips 48]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from figures import Row, bench_parser, finish, processor_seconds

from mvemo.cache import CacheWriter, open_cache
from mvemo.extract.nets import build_net
from mvemo.extract.workers.pool import stop_workers
from mvemo.manifests.demo import make_demo
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one.run import run_extract

NETS = ("music1d", "c3d")
METHODS = ("__init__", "current", "put", "fail", "clear_failures", "commit", "close")


class Watch:
    """Sums up the time that a class's methods take; within each other they count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def patch(self, owner: type, name: str) -> None:
        method = getattr(owner, name)
        setattr(owner, name, self._timed(method))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return method(*arguments, **options)
            self._inside, started = True, time.process_time()
            try:
                return method(*arguments, **options)
            finally:
                self._inside = False
                self.seconds += time.process_time() - started

        return timed


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--clips", type=int)
    options = parser.parse_args()
    options.clips = options.clips or (12 if options.quick else 48)
    watch = Watch()
    for name in METHODS:
        watch.patch(CacheWriter, name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = make_demo(folder / "demo", clips_per_class=max(2, options.clips // 6))
        overrides = [f'extract.nets="{",".join(NETS)}"', 'extract.protocol="frozen"']
        paper = load_settings("paper").extract.descriptors
        overrides.append(f"extract.descriptors={list(paper)}")
        # As narrow as the profile has them: of wider ones writing is a smaller part.
        for net, given in ((net, load_settings("demo").nets[net]) for net in NETS):
            built = build_net(net, len(demo.classes), width=given.width, **given.options)
            state = built.state_dict()
            np.savez(folder / f"{net}.npz", **{k: v.numpy() for k, v in state.items()})
            overrides.append(f"nets.{net}.weights='{folder / net}.npz'")
        settings = load_settings("demo", overrides)
        started = processor_seconds()
        out = folder / "features.h5"
        run_extract(folder / "demo" / "manifest.csv", settings, work=folder / "work", out=out)
        stop_workers()
        whole = processor_seconds() - started
        with open_cache(out) as cache:
            features = ", ".join(cache.names())
        size = out.stat().st_size
    print(f"writing: {len(demo)} clips, {features}: {size / 1e6:.1f} MB")
    what = f"write features of {len(demo)} clips, processor"
    share = watch.seconds / whole
    finish(options, [Row(what, watch.seconds, "s", "all of extraction", whole, share, "<= 0.03")])


if __name__ == "__main__":
    main()
