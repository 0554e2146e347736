"""What a run will cost and see, for a terminal: nothing is trained."""

from afd_jax.reports.cost import describe as describe_plan
from afd_jax.runs.assemble import Run


def describe(run: Run) -> str:
    """The loss graph, a table of costs (see `reports.cost`), data and length."""
    splits, devices = run.splits, run.devices
    per_device = run.batch_size // len(devices.devices)
    several = f", {len(run.seeds)} seeds at once (all costs per seed)" * (len(run.seeds) > 1)
    return "\n".join(
        [
            describe_plan(run.plan, per_device),
            "",
            f"data: {len(splits.train):,} train, {len(splits.heldout):,} held out, "
            f"{len(splits.test):,} test; images {splits.image_shape}, {splits.classes} classes",
            f"{run.total_steps:,} steps of {run.batch_size} images "
            f"({run.total_steps / run.steps_per_epoch:.4g} epochs) on {len(devices.devices)} x "
            f"{devices.platform}, {devices.mode}{several}",
        ]
    )
