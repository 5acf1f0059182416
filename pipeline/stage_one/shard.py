"""Run of one shard of stage one: its own clips, and the nets that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mvemo.cache import CacheWriter, open_cache
from mvemo.cache.storage.layout import subset
from mvemo.extract.settings import NetSettings
from mvemo.extract.workers.pool import stop_workers
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import tell
from mvemo.pipeline.stage_one.execution import Shard, Training, trainings_of
from mvemo.pipeline.stage_one.plan import ExtractPlan
from mvemo.pipeline.stage_one.shards import ShardFolder, run_facts
from mvemo.pipeline.stage_one.steps import FeatureWriter, tell_device, write_nets
from mvemo.pipeline.stage_one.summary import ExtractSummary, divergence


def run_shard(
    plan: ExtractPlan, shard: Shard, work: Path, out: Path, *, force: bool
) -> ExtractSummary:
    """Run one shard of a planned run.

    A shard that is done with the same settings is not run again without `force`.
    """
    settings, manifest = plan.settings, plan.manifest
    rows = shard.rows(manifest)
    whole = plan.evaluation.table
    trainings = shard.trainings(trainings_of(plan.nets, settings.extract.run, whole.folds))
    folder, facts = ShardFolder(out), run_facts(settings, whole, shard.count)
    folder.claim(facts, whole, plan.facts, force=force)
    path = folder.cache(shard)
    if folder.is_done(shard, facts) and not force:
        tell(f"shard {shard} is done: {path}")
        with open_cache(path) as done:
            failures = tuple((f.clip_id, f.stage, f.reason) for f in done.failures)
            return ExtractSummary(path, len(rows), done.names(), failures, work=work)
    # Trained nets embed all clips.
    table = whole if trainings else subset(whole, rows)
    part = replace(manifest, clips=tuple(manifest.clips[row] for row in rows))
    with CacheWriter(path, table, provenance=plan.facts) as writer:
        media = ClipMedia(
            part,
            settings,
            work,
            plans=plan.nets,
            descriptors=settings.extract.descriptors,
            require_any=False,
            numbers=rows,
        )
        stop_workers()
        features = FeatureWriter(media, settings, writer, work)
        features.write_failures()
        features.write_descriptors()
        nets = list(plan.nets) if settings.extract.run.protocol == "frozen" and rows else []
        if trainings:
            features, nets = _trainer(plan, trainings, writer, work)
        tell_device(settings.extract.run)
        diverged = write_nets(features, nets, writer)
        failures = writer.failures
    if diverged:
        raise divergence(diverged, features.features, nets, path)
    folder.finish(shard, facts)
    with open_cache(path) as done:
        names = done.names()
    return ExtractSummary(path, len(rows), names, failures, media.missing, plan.notes, work)


def _trainer(
    plan: ExtractPlan, trainings: Sequence[Training], writer: CacheWriter, work: Path
) -> tuple[FeatureWriter, list[NetSettings]]:
    """Return a writer that trains some nets and embeds all clips, and these nets."""
    chosen = {name for name, _ in trainings}
    nets = [net for net in plan.nets if net.name in chosen]
    media = ClipMedia(plan.manifest, plan.settings, work, plans=nets)
    stop_workers()
    features = FeatureWriter(media, plan.settings, writer, work, trainings)
    return features, features.runnable(nets)
