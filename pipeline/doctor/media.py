"""Checks of codecs, GPU and fetched weights."""

from __future__ import annotations

import shutil

from mvemo.pipeline.doctor.findings import Finding

# Codecs of common music and music video files.
CODECS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4"),
    *("mp3", "aac", "flac", "vorbis", "opus", "alac", "pcm_s16le"),
)


def check_codecs() -> Finding:
    """Check that PyAV decodes the common codecs."""
    import av

    absent = [name for name in CODECS if not _decodes(name)]
    known = ", ".join(name for name in CODECS if name not in absent)
    if not absent:
        return Finding("ok", "codecs", f"av {av.__version__} reads {known}")
    return Finding(
        "note",
        "codecs",
        f"av {av.__version__} does not read {', '.join(absent)}: such clips will fail",
        "pip install --force-reinstall --only-binary av av",
    )


def _decodes(name: str) -> bool:
    from av.codec import Codec

    try:
        Codec(name, "r")
    except ValueError:
        return False
    return True


def check_gpu() -> Finding:
    """Check for a GPU that nets can run on."""
    import torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        return Finding("ok", "GPU", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    if shutil.which("nvidia-smi") is None:
        return Finding("note", "GPU", "none", "--profile pretrained needs none, paper does")
    built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    return Finding(
        "problem",
        "GPU",
        f"this machine has nvidia-smi, but torch, built {built}, finds no GPU",
        "see 'nvidia-smi'; install torch and torchvision for its CUDA version (pytorch.org)",
    )


def check_weights() -> list[Finding]:
    """Check for each net with public weights that they are here and undamaged."""
    from mvemo.extract.pretrained import find_weights, list_packages

    findings = []
    for package in list_packages():
        subject = f"weights {package.net}"
        get = f"mvemo weights get {package.net}"
        stored = find_weights(package.net)
        if stored is None:
            findings.append(Finding("note", subject, "not fetched yet", get))
        elif not stored.whole:
            text = f"{stored.path} is damaged: its SHA-256 differs"
            findings.append(Finding("problem", subject, text, get))
        else:
            text = f"SHA-256 {stored.sha256[:16]}, licence {stored.licence}"
            findings.append(Finding("ok", subject, text))
    return findings
