"""Entry points of ``mvemo`` and ``mvemo-cv``; signals are handled before other imports."""

from mvemo.pipeline.early import end_with_torchrun, let_threads_sleep, take_early_signals

take_early_signals()
let_threads_sleep()
end_with_torchrun()

from mvemo.pipeline.entry import main, main_cv  # noqa: E402

__all__ = ["main", "main_cv"]
